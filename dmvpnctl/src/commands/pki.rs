//! `pki`: certificates for people without a PKI. Nothing here talks to an agent.
//!
//! A folder holds what a Secret holds, under the same names, so that it can be mounted, made a Secret of, or named by
//! `file:` as it is: `tls.crt` (own certificate first), `tls.key`, `ca.crt` (the root), `crl.pem`. A CA's folder also
//! remembers what it has `issued` and revoked.

mod args;
mod folder;
mod secret;
mod show;

pub use args::{
    Claims, IntermediateArgs, NodeArgs, Output, Pki, RequestArgs, RevokeArgs, RootArgs, SignArgs,
};

use crate::cli;
use crate::error::Error;
use folder::{Folder, Issued};
use identity::pki::{self, Authority, Described, Request, Validity};
use std::io::Write;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// Other clocks may be a little behind ours.
const SKEW: u64 = 300;
const DAY: u64 = 86_400;

/// Runs one of the commands.
///
/// # Errors
/// What is wrong, and what to do.
pub fn run(command: &Pki, output: cli::Output, out: &mut impl Write) -> Result<(), Error> {
    match command {
        Pki::Root(args) => root(args, out),
        Pki::Intermediate(args) => intermediate(args, out),
        Pki::Node(args) => node(args, out),
        Pki::Request(args) => request(args, out),
        Pki::Sign(args) => sign(args, out),
        Pki::Revoke(args) => revoke(args, out),
        Pki::Crl { ca, days } => {
            let folder = Folder::open(ca)?;
            let count = list(&folder, *days, None)?;
            writeln!(out, "Wrote {}: {count} revoked.", folder.path("crl.pem").display())?;
            Ok(distribute(out, &folder)?)
        }
        Pki::Show { files } => show(files, output, out),
    }
}

fn root(args: &RootArgs, out: &mut impl Write) -> Result<(), Error> {
    let folder = Folder::create(&args.output, &args.name)?;
    let made = Authority::root(&args.name, validity(args.days)?)?;
    folder.write_key(made.key_pem(), args.output.force)?;
    folder.write("tls.crt", &made.chain_pem())?;
    folder.write("ca.crt", &made.chain_pem())?;
    wrote(out, &folder, "the root's certificate and key")?;
    writeln!(
        out,
        "Keep the key where no node is. Every node gets the root as its trust: {}\n\
         Next, a CA for each cluster, confined to what it owns:\n  \
         dmvpnctl pki intermediate hq --parent {} --domain hq.example.com \\\n    \
         --tunnel-addresses 10.200.0.0/24 --prefixes 10.0.0.0/16",
        folder.path("ca.crt").display(),
        folder.shown(),
    )?;
    Ok(())
}

fn intermediate(args: &IntermediateArgs, out: &mut impl Write) -> Result<(), Error> {
    let parent = Folder::open(&args.parent)?;
    let folder = Folder::create(&args.output, &args.name)?;
    let confines = pki::Confines {
        domains: args.domain.clone(),
        tunnel_addresses: args.tunnel_addresses.clone(),
        prefixes: args.prefixes.clone(),
    };
    let made = parent.authority()?.intermediate(&args.name, &confines, validity(args.days)?)?;
    folder.write_key(made.key_pem(), args.output.force)?;
    folder.write("tls.crt", &made.chain_pem())?;
    folder.write("ca.crt", &parent.read("ca.crt")?)?;
    parent.remember_issued(&args.name, &made.chain_pem())?;
    wrote(out, &folder, "a CA that can issue only within its domain, tunnel addresses and prefixes")?;
    secret::offer(out, &folder, args.output.secret.as_deref())?;
    writeln!(
        out,
        "Next: let the operator issue with it (certificates: {{issuedBy: Operator, caSecret: ..., trust: ...}}), or issue by hand:\n  \
         on the node:  dmvpnctl pki request NAME --tunnel-address ADDRESS --prefixes PREFIX\n  \
         here:         dmvpnctl pki sign request.csr --ca {}",
        folder.shown(),
    )?;
    Ok(())
}

fn node(args: &NodeArgs, out: &mut impl Write) -> Result<(), Error> {
    let ca = Folder::open(&args.ca)?;
    let folder = Folder::create(&args.output, &args.claims.name)?;
    let made = ca.authority()?.node(&args.claims.to_pki(), validity(args.days)?)?;
    folder.write_key(&made.key, args.output.force)?;
    folder.write("tls.crt", &made.chain)?;
    folder.write("ca.crt", &ca.read("ca.crt")?)?;
    ca.remember_issued(&args.claims.name, &made.chain)?;
    wrote(out, &folder, "the node's certificate and key")?;
    secret::offer(out, &folder, args.output.secret.as_deref())?;
    Ok(use_it(out, &folder)?)
}

fn request(args: &RequestArgs, out: &mut impl Write) -> Result<(), Error> {
    let folder = Folder::create(&args.output, &args.claims.name)?;
    let claims = args.claims.to_pki();
    let request = if args.renew {
        Request::for_key(&claims, &folder.read("tls.key")?)?
    } else {
        let (request, key) = Request::make(&claims)?;
        folder.write_key(&key, args.output.force)?;
        request
    };
    folder.write("request.csr", &request)?;
    wrote(out, &folder, "a request; the key stays here")?;
    writeln!(
        out,
        "Next: take {} to the CA, sign it, and put the tls.crt and ca.crt that it writes into {}:\n  \
         dmvpnctl pki sign request.csr --ca CA-FOLDER --out signed",
        folder.path("request.csr").display(),
        folder.shown(),
    )?;
    Ok(())
}

fn sign(args: &SignArgs, out: &mut impl Write) -> Result<(), Error> {
    let ca = Folder::open(&args.ca)?;
    let request = Request::from_pem(folder::read(&args.request)?.as_bytes())?;
    let mut claims = request.claims.clone();
    if !args.tunnel_address.is_empty() {
        claims.tunnel_addresses.clone_from(&args.tunnel_address);
    }
    if let Some(prefixes) = &args.prefixes {
        claims.prefixes.clone_from(prefixes);
    }
    let chain = ca.authority()?.sign(&request, &claims, validity(args.days)?)?;
    let folder = Folder::create(&args.output, &claims.name)?;
    folder.write("tls.crt", &chain)?;
    folder.write("ca.crt", &ca.read("ca.crt")?)?;
    ca.remember_issued(&claims.name, &chain)?;
    wrote(out, &folder, &format!("a certificate for {}", args::shown(&claims)))?;
    writeln!(out, "Next: put both beside the node's tls.key; the agent notices.")?;
    Ok(())
}

fn revoke(args: &RevokeArgs, out: &mut impl Write) -> Result<(), Error> {
    let folder = Folder::open(&args.ca)?;
    let issued = match Path::new(&args.what).is_file() {
        true => certificate(Path::new(&args.what), &folder)?,
        false => Issued {
            serial: args.what.to_ascii_lowercase().replace(':', ""),
            name: String::new(),
            since: now()?,
        },
    };
    let name = if issued.name.is_empty() { issued.serial.clone() } else { issued.name.clone() };
    let count = list(&folder, args.days, Some(issued))?;
    writeln!(out, "Revoked {name}; wrote {}: {count} revoked.", folder.path("crl.pem").display())?;
    Ok(distribute(out, &folder)?)
}

/// The certificate in a file, if this CA has issued it.
fn certificate(file: &Path, folder: &Folder) -> Result<Issued, Error> {
    let first = |text: String| {
        Ok::<_, Error>(pki::describe(text.as_bytes())?.into_iter().find_map(|d| match d {
            Described::Certificate(facts) => Some(facts),
            _ => None,
        }))
    };
    let none = || Error::Pki(format!("{} holds no certificate", file.display()));
    let facts = first(folder::read(file)?)?.ok_or_else(none)?;
    let ca = first(folder.read("tls.crt")?)?.ok_or_else(none)?;
    if facts.issuer != ca.subject {
        return Err(Error::Pki(format!(
            "{} was issued by `{}`, and {} is the folder of `{}`: name that CA's folder",
            file.display(),
            facts.issuer,
            folder.shown(),
            ca.subject
        )));
    }
    let name = facts.names.first().unwrap_or(&facts.subject).clone();
    Ok(Issued { serial: facts.serial, name, since: now()? })
}

/// Writes a new revocation list, with one more on it if there is one; says how many are on it.
fn list(folder: &Folder, days: u64, further: Option<Issued>) -> Result<usize, Error> {
    let authority = folder.authority()?;
    let mut state = folder.revoked()?;
    if let Some(further) = further.filter(|f| !state.revoked.iter().any(|r| r.serial == f.serial)) {
        state.revoked.push(further);
    }
    state.number += 1;
    let revoked = state.revoked.iter().map(Issued::to_pki).collect::<Result<Vec<_>, _>>()?;
    let text = authority.revocation_list(&revoked, state.number, validity(days)?)?;
    // First what must not be forgotten.
    folder.write_revoked(&state)?;
    folder.write("crl.pem", &text)?;
    Ok(revoked.len())
}

fn show(files: &[std::path::PathBuf], output: cli::Output, out: &mut impl Write) -> Result<(), Error> {
    let now = now()?;
    let mut all = Vec::new();
    for file in files {
        let described = pki::describe(folder::read(file)?.as_bytes())
            .map_err(|e| Error::Pki(format!("{}: {}", file.display(), e.0)))?;
        all.extend(described);
    }
    match output {
        cli::Output::Table => out.write_all(show::render(&all, now).as_bytes())?,
        cli::Output::Json => writeln!(out, "{}", serde_json::to_string_pretty(&all)?)?,
    }
    Ok(())
}

fn wrote(out: &mut impl Write, folder: &Folder, what: &str) -> std::io::Result<()> {
    writeln!(out, "Wrote {what}, into {}", folder.shown())
}

fn use_it(out: &mut impl Write, folder: &Folder) -> std::io::Result<()> {
    let path = folder.absolute();
    writeln!(
        out,
        "Next, in the manifest of the node (without Kubernetes), after moving the folder there:\n  \
         security: {{authentication: {{certificates: {{issuedBy: Secret, secret: \"file:{path}\", trust: \"file:{path}\"}}}}}}"
    )
}

fn distribute(out: &mut impl Write, folder: &Folder) -> std::io::Result<()> {
    writeln!(
        out,
        "Next: put it as crl.pem beside ca.crt (the Secret or folder that `trust` names) on every node: lists of several \
         CAs stand one after another in one crl.pem. Sessions with who is revoked end at once.\n  \
         kubectl create secret generic dmvpn-roots --from-file=ca.crt={} --from-file=crl.pem={} --dry-run=client -o yaml | kubectl apply -f -",
        folder.path("ca.crt").display(),
        folder.path("crl.pem").display(),
    )
}

fn validity(days: u64) -> Result<Validity, Error> {
    let now = now()?;
    let not_after = days.checked_mul(DAY).and_then(|span| now.checked_add(span));
    let not_after = not_after.ok_or_else(|| Error::Pki(format!("{days} days is too long")))?;
    Ok(Validity { not_before: now.saturating_sub(SKEW), not_after })
}

fn now() -> Result<u64, Error> {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map(|since| since.as_secs())
        .map_err(|_| Error::Pki("this machine's clock is before 1970: set it".to_owned()))
}

#[cfg(test)]
mod tests;
