#!/bin/sh
# Certificates as OpenSSL makes them, for tests/foreign.rs: RSA, the key formats of other tools, the critical extension of
# RFC 3779. The keys protect nothing. The results are committed; run this again only to change them.
set -eu
cd "$(dirname "$0")"
common='[req]
distinguished_name=dn
prompt=no
[dn]'
root() { # name, key, extension lines
    printf '%s\nCN=%s\n[x]\nbasicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\n%b' "$common" "$1" "$3" > cnf
    openssl req -x509 -new -key "$2" -days 36500 -sha256 -config cnf -extensions x -out "$1.crt"
}
leaf() { # name, key, extension lines, further options of x509
    printf '%s\nCN=%s\n' "$common" "$1" > cnf
    openssl req -new -key "$2" -config cnf -out csr
    printf '[x]\nsubjectAltName=DNS:%s.example.com\n%b' "$1" "$3" > ext
    shift 3
    openssl x509 -req -in csr -CA root.crt -CAkey root.key -days 36500 -extfile ext -extensions x -CAcreateserial "$@" -out "$name.crt" 2>/dev/null
}
openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out root.key 2>/dev/null
root root root.key 'sbgp-ipAddrBlock=critical,@b\n[b]\nIPv4.0=10.0.0.0/8\nIPv6.0=fd00::/8\n'
openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out rsa.key 2>/dev/null
openssl rsa -in rsa.key -traditional -out rsa-pkcs1.key 2>/dev/null
openssl ecparam -name secp384r1 -genkey -out p384-sec1.key
openssl genpkey -algorithm ed25519 -out ed25519.key
blocks='sbgp-ipAddrBlock=critical,@b\n[b]\nIPv4.0=10.7.0.0/16\nIPv4.1=10.9.0.0-10.9.2.255\n'
name=rsa; leaf rsa rsa.key "$blocks" -sha256
name=p384; leaf p384 p384-sec1.key 'sbgp-ipAddrBlock=critical,@b\n[b]\nIPv4.0=inherit\n' -sha384 -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:digest
name=ed25519; leaf ed25519 ed25519.key '' -sha512
name=sha1; leaf sha1 ed25519.key '' -sha1
name=greedy; leaf greedy ed25519.key 'sbgp-ipAddrBlock=critical,@b\n[b]\nIPv4.0=11.0.0.0/8\n' -sha256
printf x | openssl dgst -sha1 -sign rsa.key -out x.sha1
rm -f csr ext cnf root.srl root.key
