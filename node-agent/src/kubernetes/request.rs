//! The objects by which a certificate is asked for: a CertificateSigningRequest for our signer, or cert-manager's
//! CertificateRequest. Pure.

use crds::kubernetes::{NODE, SIGNER, TUNNEL, label_value};
use crds::spec::IssuerRef;
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestCondition, CertificateSigningRequestSpec,
};
use kube::api::{ApiResource, DynamicObject, ObjectMeta};
use kube::core::GroupVersionKind;
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing yet.
    Pending,
    /// The chain, in PEM.
    Issued(Vec<u8>),
    /// No, and why.
    Refused(String),
}

/// Whose certificate it is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Subject {
    pub(super) node: String,
    pub(super) tunnel: String,
}

/// The longest name of an object.
const MAX_NAME: usize = 253;

impl Subject {
    /// The name of an object that asks with this request: another request has another name.
    pub(super) fn name(&self, request: &str) -> String {
        let hash = digest(&SHA256, request.as_bytes());
        let hash: String = hash.as_ref().iter().take(5).map(|octet| format!("{octet:02x}")).collect();
        let name: String =
            format!("dmvpn-{}-{}", self.node, self.tunnel).chars().take(MAX_NAME - 11).collect();
        format!("{}-{hash}", name.trim_end_matches(['-', '.']))
    }

    fn metadata(&self, request: &str) -> ObjectMeta {
        let about = [(NODE, &self.node), (TUNNEL, &self.tunnel)];
        ObjectMeta {
            name: Some(self.name(request)),
            annotations: Some(about.map(|(key, name)| (key.to_owned(), name.clone())).into()),
            labels: Some(about.map(|(key, name)| (key.to_owned(), label_value(name))).into()),
            ..ObjectMeta::default()
        }
    }
}

/// For our own signer, the operator.
pub(super) fn to_operator(subject: &Subject, request: &str) -> CertificateSigningRequest {
    CertificateSigningRequest {
        metadata: subject.metadata(request),
        spec: CertificateSigningRequestSpec {
            request: ByteString(request.as_bytes().to_vec()),
            signer_name: SIGNER.to_owned(),
            usages: Some(vec!["digital signature".to_owned()]),
            ..CertificateSigningRequestSpec::default()
        },
        status: None,
    }
}

/// What the operator said.
pub(super) fn from_operator(object: &CertificateSigningRequest) -> Verdict {
    let Some(status) = &object.status else { return Verdict::Pending };
    let refused = |condition: &&CertificateSigningRequestCondition| {
        ["Denied", "Failed"].contains(&condition.type_.as_str()) && condition.status == "True"
    };
    let condition = status.conditions.iter().flatten().find(refused);
    match (condition, &status.certificate) {
        (Some(CertificateSigningRequestCondition { reason, message, .. }), _) => {
            let text = [reason.as_deref(), message.as_deref()];
            Verdict::Refused(text.into_iter().flatten().collect::<Vec<_>>().join(": "))
        }
        (None, Some(chain)) if !chain.0.is_empty() => Verdict::Issued(chain.0.clone()),
        _ => Verdict::Pending,
    }
}

/// cert-manager's kind.
pub(super) fn cert_manager() -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk("cert-manager.io", "v1", "CertificateRequest"))
}

/// For cert-manager.
pub(super) fn to_cert_manager(subject: &Subject, request: &str, issuer: &IssuerRef) -> DynamicObject {
    let IssuerRef { kind, name } = issuer;
    let mut object = DynamicObject::new(&subject.name(request), &cert_manager());
    object.metadata = subject.metadata(request);
    object.data = json!({"spec": {
        "request": ByteString(request.as_bytes().to_vec()),
        "issuerRef": {"group": "cert-manager.io", "kind": kind, "name": name},
        "usages": ["digital signature"],
    }});
    object
}

/// What cert-manager said.
pub(super) fn from_cert_manager(object: &DynamicObject) -> Verdict {
    let status = &object.data["status"];
    let conditions = status["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let refused = conditions.iter().find(|condition| {
        let (kind, is, reason) = (text(&condition["type"]), text(&condition["status"]), &condition["reason"]);
        let failed =
            kind == "Ready" && is == "False" && ["Failed", "Denied"].contains(&text(reason).as_str());
        failed || (["Denied", "InvalidRequest"].contains(&kind.as_str()) && is == "True")
    });
    if let Some(condition) = refused {
        return Verdict::Refused(format!("{}: {}", text(&condition["reason"]), text(&condition["message"])));
    }
    let ready = conditions.iter().any(|c| text(&c["type"]) == "Ready" && text(&c["status"]) == "True");
    match serde_json::from_value::<ByteString>(status["certificate"].clone()) {
        Ok(chain) if ready && !chain.0.is_empty() => Verdict::Issued(chain.0),
        _ => Verdict::Pending,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::certificates::v1::CertificateSigningRequestStatus;

    fn subject(node: &str) -> Subject {
        Subject { node: node.to_owned(), tunnel: "site".to_owned() }
    }

    #[test]
    fn a_name_says_whose_it_is_and_is_another_for_another_key() {
        let (one, other) = (subject("a-1").name("one"), subject("a-1").name("other"));
        assert!(one.starts_with("dmvpn-a-1-site-") && one != other, "{one} {other}");
        assert!(subject(&"n".repeat(253)).name("one").len() <= MAX_NAME);
    }

    #[test]
    fn a_node_with_a_long_name_says_it_where_there_is_room() {
        let long = "n".repeat(200);
        let metadata = to_operator(&subject(&long), "request").metadata;
        assert_eq!(metadata.annotations.unwrap()[NODE], long);
        assert!(metadata.labels.unwrap().values().all(|value| value.len() <= 63));
    }

    fn told(kind: &str, certificate: &[u8]) -> CertificateSigningRequest {
        let condition = CertificateSigningRequestCondition {
            type_: kind.to_owned(),
            status: "True".to_owned(),
            reason: Some("WrongNode".to_owned()),
            message: Some("not yours".to_owned()),
            ..Default::default()
        };
        let status = CertificateSigningRequestStatus {
            conditions: Some(vec![condition]),
            certificate: Some(ByteString(certificate.to_vec())),
        };
        CertificateSigningRequest { status: Some(status), ..to_operator(&subject("a-1"), "request") }
    }

    #[test]
    fn approved_is_not_yet_signed() {
        assert_eq!(from_operator(&told("Approved", b"")), Verdict::Pending);
        assert_eq!(from_operator(&told("Approved", b"chain")), Verdict::Issued(b"chain".to_vec()));
        assert_eq!(from_operator(&told("Denied", b"")), Verdict::Refused("WrongNode: not yours".to_owned()));
    }

    #[test]
    fn cert_manager_says_it_in_its_own_way() {
        let issuer = IssuerRef { kind: "ClusterIssuer".to_owned(), name: "ca".to_owned() };
        let mut object = to_cert_manager(&subject("a-1"), "request", &issuer);
        assert_eq!(from_cert_manager(&object), Verdict::Pending);
        let ready = |status: &str, reason: &str| json!([{"type": "Ready", "status": status, "reason": reason, "message": "m"}]);
        let chain = serde_json::to_value(ByteString(b"chain".to_vec())).unwrap();
        object.data["status"] = json!({"conditions": ready("True", "Issued"), "certificate": chain});
        assert_eq!(from_cert_manager(&object), Verdict::Issued(b"chain".to_vec()));
        object.data["status"] = json!({"conditions": ready("False", "Failed")});
        assert_eq!(from_cert_manager(&object), Verdict::Refused("Failed: m".to_owned()));
        object.data["status"] = json!({"conditions": ready("False", "Pending")});
        assert_eq!(from_cert_manager(&object), Verdict::Pending);
    }
}
