//! Numbers on the wire. Newtypes, so that what we don't know survives and can be shown.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A newtype for a number of a registry, with the values known here by name.
macro_rules! registry {
    ($(#[$doc:meta])* $type:ident($width:ty) { $($(#[$value_doc:meta])* $name:ident = $value:literal => $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $type(pub $width);

        #[allow(missing_docs)] // what a value means is in the registry its type names
        impl $type {
            $($(#[$value_doc])* pub const $name: Self = Self($value);)*

            /// Its name in the registry; `None` for a value not known here.
            #[must_use]
            pub const fn name(self) -> Option<&'static str> {
                match self {
                    $(Self::$name => Some($text),)*
                    _ => None,
                }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self.name() {
                    Some(name) => f.write_str(name),
                    None => write!(f, "{}({})", stringify!($type), self.0),
                }
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

registry! {
    /// Exchange types (RFC 7296 §3.1).
    ExchangeType(u8) {
        IKE_SA_INIT = 34 => "IKE_SA_INIT",
        IKE_AUTH = 35 => "IKE_AUTH",
        CREATE_CHILD_SA = 36 => "CREATE_CHILD_SA",
        INFORMATIONAL = 37 => "INFORMATIONAL",
        /// IKE_INTERMEDIATE (RFC 9242): only its number, for hybrid key exchange (RFC 9370) later.
        IKE_INTERMEDIATE = 43 => "IKE_INTERMEDIATE",
    }
}

registry! {
    /// Payload types (RFC 7296 §3.2).
    PayloadType(u8) {
        NONE = 0 => "none",
        SA = 33 => "SA",
        KE = 34 => "KE",
        IDI = 35 => "IDi",
        IDR = 36 => "IDr",
        CERT = 37 => "CERT",
        CERTREQ = 38 => "CERTREQ",
        AUTH = 39 => "AUTH",
        NONCE = 40 => "No",
        NOTIFY = 41 => "N",
        DELETE = 42 => "D",
        VENDOR = 43 => "V",
        TSI = 44 => "TSi",
        TSR = 45 => "TSr",
        SK = 46 => "SK",
        CP = 47 => "CP",
        EAP = 48 => "EAP",
        SKF = 53 => "SKF",
    }
}

registry! {
    /// Security protocol identifiers (RFC 7296 §3.3.1).
    ProtocolId(u8) {
        /// None: a notification that concerns no SA, or the IKE SA it travels by.
        NONE = 0 => "none",
        IKE = 1 => "IKE",
        AH = 2 => "AH",
        ESP = 3 => "ESP",
    }
}

registry! {
    /// Transform types (RFC 7296 §3.3.2, RFC 9370 §2).
    TransformType(u8) {
        ENCR = 1 => "ENCR",
        PRF = 2 => "PRF",
        INTEG = 3 => "INTEG",
        KE = 4 => "KE",
        ESN = 5 => "ESN",
        /// Additional key exchanges (RFC 9370): read, and not offered.
        ADDKE1 = 6 => "ADDKE1",
        ADDKE2 = 7 => "ADDKE2",
        ADDKE3 = 8 => "ADDKE3",
        ADDKE4 = 9 => "ADDKE4",
        ADDKE5 = 10 => "ADDKE5",
        ADDKE6 = 11 => "ADDKE6",
        ADDKE7 = 12 => "ADDKE7",
    }
}

registry! {
    /// Encryption algorithms, transform type 1 (RFC 7296 §3.3.2, RFC 5282, RFC 7634). The names are strongSwan's.
    EncryptionId(u16) {
        DES_IV64 = 1 => "des-iv64",
        DES = 2 => "des",
        TRIPLE_DES = 3 => "3des",
        RC5 = 4 => "rc5",
        IDEA = 5 => "idea",
        CAST = 6 => "cast128",
        BLOWFISH = 7 => "blowfish",
        NULL = 11 => "null",
        AES_CBC = 12 => "aes",
        AES_CTR = 13 => "aesctr",
        AES_CCM_8 = 14 => "aesccm8",
        AES_CCM_12 = 15 => "aesccm12",
        AES_CCM_16 = 16 => "aesccm16",
        AES_GCM_8 = 18 => "aesgcm8",
        AES_GCM_12 = 19 => "aesgcm12",
        AES_GCM_16 = 20 => "aesgcm16",
        AES_GMAC = 21 => "aesgmac",
        CAMELLIA_CBC = 23 => "camellia",
        CHACHA20_POLY1305 = 28 => "chacha20poly1305",
    }
}

registry! {
    /// Pseudorandom functions, transform type 2. The names are strongSwan's.
    PrfId(u16) {
        HMAC_MD5 = 1 => "prfmd5",
        HMAC_SHA1 = 2 => "prfsha1",
        AES128_XCBC = 4 => "prfaesxcbc",
        HMAC_SHA2_256 = 5 => "prfsha256",
        HMAC_SHA2_384 = 6 => "prfsha384",
        HMAC_SHA2_512 = 7 => "prfsha512",
        AES128_CMAC = 8 => "prfaescmac",
    }
}

registry! {
    /// Integrity algorithms, transform type 3. The names are strongSwan's.
    IntegrityId(u16) {
        NONE = 0 => "none",
        HMAC_MD5_96 = 1 => "md5",
        HMAC_SHA1_96 = 2 => "sha1",
        AES_XCBC_96 = 5 => "aesxcbc",
        AES_CMAC_96 = 8 => "aescmac",
        HMAC_SHA2_256_128 = 12 => "sha256",
        HMAC_SHA2_384_192 = 13 => "sha384",
        HMAC_SHA2_512_256 = 14 => "sha512",
    }
}

registry! {
    /// Key exchange methods, transform type 4 (RFC 7296 §3.3.2, RFC 5903, RFC 8031). The names are strongSwan's.
    GroupId(u16) {
        NONE = 0 => "none",
        MODP_768 = 1 => "modp768",
        MODP_1024 = 2 => "modp1024",
        MODP_1536 = 5 => "modp1536",
        MODP_2048 = 14 => "modp2048",
        MODP_3072 = 15 => "modp3072",
        MODP_4096 = 16 => "modp4096",
        MODP_6144 = 17 => "modp6144",
        MODP_8192 = 18 => "modp8192",
        ECP_256 = 19 => "ecp256",
        ECP_384 = 20 => "ecp384",
        ECP_521 = 21 => "ecp521",
        MODP_2048_256 = 24 => "modp2048s256",
        ECP_256_BP = 28 => "ecp256bp",
        ECP_384_BP = 29 => "ecp384bp",
        ECP_512_BP = 30 => "ecp512bp",
        CURVE_25519 = 31 => "x25519",
        CURVE_448 = 32 => "x448",
        ML_KEM_512 = 35 => "mlkem512",
        ML_KEM_768 = 36 => "mlkem768",
        ML_KEM_1024 = 37 => "mlkem1024",
    }
}

registry! {
    /// Extended sequence numbers, transform type 5.
    EsnId(u16) {
        NONE = 0 => "noesn",
        ESN = 1 => "esn",
    }
}

registry! {
    /// Types of identities (RFC 7296 §3.5).
    IdType(u8) {
        IPV4_ADDR = 1 => "ID_IPV4_ADDR",
        FQDN = 2 => "ID_FQDN",
        RFC822_ADDR = 3 => "ID_RFC822_ADDR",
        IPV6_ADDR = 5 => "ID_IPV6_ADDR",
        DER_ASN1_DN = 9 => "ID_DER_ASN1_DN",
        DER_ASN1_GN = 10 => "ID_DER_ASN1_GN",
        KEY_ID = 11 => "ID_KEY_ID",
    }
}

registry! {
    /// How a certificate is encoded (RFC 7296 §3.6).
    CertificateEncoding(u8) {
        PKCS7_X509 = 1 => "PKCS #7",
        X509_SIGNATURE = 4 => "X.509 certificate - signature",
        CRL = 7 => "certificate revocation list",
        HASH_AND_URL_X509 = 12 => "hash and URL of an X.509 certificate",
        OCSP_CONTENT = 14 => "OCSP content",
    }
}

registry! {
    /// Authentication methods (RFC 7296 §3.8, RFC 7427 §3).
    AuthType(u8) {
        RSA_SIGNATURE = 1 => "RSA digital signature",
        SHARED_KEY = 2 => "shared key",
        DSS_SIGNATURE = 3 => "DSS digital signature",
        ECDSA_256 = 9 => "ECDSA-256",
        ECDSA_384 = 10 => "ECDSA-384",
        ECDSA_521 = 11 => "ECDSA-521",
        NULL = 13 => "null authentication",
        DIGITAL_SIGNATURE = 14 => "digital signature",
    }
}

registry! {
    /// Types of traffic selectors (RFC 7296 §3.13.1).
    SelectorType(u8) {
        IPV4_ADDR_RANGE = 7 => "TS_IPV4_ADDR_RANGE",
        IPV6_ADDR_RANGE = 8 => "TS_IPV6_ADDR_RANGE",
    }
}

registry! {
    /// Notify message types (RFC 7296 §3.10.1 and the registry). Below 16384 they are errors.
    NotifyType(u16) {
        UNSUPPORTED_CRITICAL_PAYLOAD = 1 => "UNSUPPORTED_CRITICAL_PAYLOAD",
        INVALID_IKE_SPI = 4 => "INVALID_IKE_SPI",
        INVALID_MAJOR_VERSION = 5 => "INVALID_MAJOR_VERSION",
        INVALID_SYNTAX = 7 => "INVALID_SYNTAX",
        INVALID_MESSAGE_ID = 9 => "INVALID_MESSAGE_ID",
        INVALID_SPI = 11 => "INVALID_SPI",
        NO_PROPOSAL_CHOSEN = 14 => "NO_PROPOSAL_CHOSEN",
        INVALID_KE_PAYLOAD = 17 => "INVALID_KE_PAYLOAD",
        AUTHENTICATION_FAILED = 24 => "AUTHENTICATION_FAILED",
        SINGLE_PAIR_REQUIRED = 34 => "SINGLE_PAIR_REQUIRED",
        NO_ADDITIONAL_SAS = 35 => "NO_ADDITIONAL_SAS",
        INTERNAL_ADDRESS_FAILURE = 36 => "INTERNAL_ADDRESS_FAILURE",
        FAILED_CP_REQUIRED = 37 => "FAILED_CP_REQUIRED",
        TS_UNACCEPTABLE = 38 => "TS_UNACCEPTABLE",
        INVALID_SELECTORS = 39 => "INVALID_SELECTORS",
        TEMPORARY_FAILURE = 43 => "TEMPORARY_FAILURE",
        CHILD_SA_NOT_FOUND = 44 => "CHILD_SA_NOT_FOUND",
        /// RFC 9611: no more child SAs for the same selectors.
        TS_MAX_QUEUE = 48 => "TS_MAX_QUEUE",
        INITIAL_CONTACT = 16384 => "INITIAL_CONTACT",
        SET_WINDOW_SIZE = 16385 => "SET_WINDOW_SIZE",
        ADDITIONAL_TS_POSSIBLE = 16386 => "ADDITIONAL_TS_POSSIBLE",
        IPCOMP_SUPPORTED = 16387 => "IPCOMP_SUPPORTED",
        NAT_DETECTION_SOURCE_IP = 16388 => "NAT_DETECTION_SOURCE_IP",
        NAT_DETECTION_DESTINATION_IP = 16389 => "NAT_DETECTION_DESTINATION_IP",
        COOKIE = 16390 => "COOKIE",
        USE_TRANSPORT_MODE = 16391 => "USE_TRANSPORT_MODE",
        HTTP_CERT_LOOKUP_SUPPORTED = 16392 => "HTTP_CERT_LOOKUP_SUPPORTED",
        REKEY_SA = 16393 => "REKEY_SA",
        ESP_TFC_PADDING_NOT_SUPPORTED = 16394 => "ESP_TFC_PADDING_NOT_SUPPORTED",
        NON_FIRST_FRAGMENTS_ALSO = 16395 => "NON_FIRST_FRAGMENTS_ALSO",
        MOBIKE_SUPPORTED = 16396 => "MOBIKE_SUPPORTED",
        AUTH_LIFETIME = 16403 => "AUTH_LIFETIME",
        MULTIPLE_AUTH_SUPPORTED = 16404 => "MULTIPLE_AUTH_SUPPORTED",
        REDIRECT_SUPPORTED = 16406 => "REDIRECT_SUPPORTED",
        CHILDLESS_IKEV2_SUPPORTED = 16418 => "CHILDLESS_IKEV2_SUPPORTED",
        /// RFC 6290.
        QUICK_CRASH_DETECTION = 16419 => "QUICK_CRASH_DETECTION",
        /// RFC 7383.
        FRAGMENTATION_SUPPORTED = 16430 => "IKEV2_FRAGMENTATION_SUPPORTED",
        /// RFC 7427.
        SIGNATURE_HASH_ALGORITHMS = 16431 => "SIGNATURE_HASH_ALGORITHMS",
        /// RFC 9242.
        INTERMEDIATE_EXCHANGE_SUPPORTED = 16438 => "INTERMEDIATE_EXCHANGE_SUPPORTED",
        /// RFC 9611: this child SA is one of several for the same selectors.
        SA_RESOURCE_INFO = 16444 => "SA_RESOURCE_INFO",
    }
}

impl NotifyType {
    /// Does it say that something failed?
    ///
    /// ```text
    /// //= rfc7296#3.10.1
    /// Types in the range 0 - 16383 are intended for reporting errors.
    /// ```
    #[must_use]
    pub const fn is_error(self) -> bool {
        self.0 < 16384
    }
}
