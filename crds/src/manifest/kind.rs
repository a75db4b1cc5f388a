//! One kind: its schema, its rules compiled once.

use super::structural::{self, Finding};
use crate::schema::{GeneratedCrd, crds};
use kube_cel::{CompiledSchema, Validator, apply_defaults, compile_schema};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::sync::LazyLock;

/// `DmvpnHub`.
pub(super) static HUB: LazyLock<Kind> = LazyLock::new(|| {
    let [hub, ..] = crds();
    Kind::new(&hub)
});

/// `DmvpnSpoke`.
pub(super) static SPOKE: LazyLock<Kind> = LazyLock::new(|| {
    let [_, spoke, _] = crds();
    Kind::new(&spoke)
});

/// `DmvpnNode`.
pub(super) static NODE: LazyLock<Kind> = LazyLock::new(|| {
    let [.., node] = crds();
    Kind::new(&node)
});

pub(super) struct Kind {
    schema: Value,
    rules: CompiledSchema,
}

impl Kind {
    fn new(crd: &GeneratedCrd) -> Self {
        Self { schema: crd.schema().clone(), rules: compile_schema(crd.schema()) }
    }

    /// The object that an API server would store for `value`, as a type.
    pub(super) fn read<T: DeserializeOwned>(
        &self,
        validator: &Validator,
        value: Value,
    ) -> Result<T, Vec<Finding>> {
        typed(self.check(validator, value)?)
    }

    /// What the API server does with an object, in its order: nulls are dropped where a default stands, defaults are
    /// filled in, structure is checked, then rules (which may rely on structure).
    pub(super) fn check(&self, validator: &Validator, mut value: Value) -> Result<Value, Vec<Finding>> {
        if let Some(object) = value.as_object_mut() {
            object.remove("status"); // `kubectl get -o yaml` prints it
        }
        prune_nulls(&self.schema, &mut value);
        let value = apply_defaults(&self.schema, &value);
        let mut findings = Vec::new();
        structural::check(&self.schema["properties"]["spec"], &value["spec"], "spec", &mut findings);
        for name in value.as_object().into_iter().flatten().map(|(name, _)| name) {
            if !matches!(name.as_str(), "apiVersion" | "kind" | "metadata" | "spec") {
                findings.push((name.clone(), "is no field of an object: move it under spec".to_owned()));
            }
        }
        if !findings.is_empty() {
            return Err(findings);
        }
        match validator.validate_compiled(&self.rules, &value, None) {
            Ok(()) => Ok(value),
            Err(errors) => Err(errors.into_iter().map(|e| (e.field_path, e.message)).collect()),
        }
    }
}

/// A value as a type; what the schema let through is a type's value, or the schema is wrong.
pub(super) fn typed<T: DeserializeOwned>(value: Value) -> Result<T, Vec<Finding>> {
    serde_json::from_value(value).map_err(|error| vec![(String::new(), error.to_string())])
}

fn prune_nulls(schema: &Value, value: &mut Value) {
    match value {
        Value::Object(object) => {
            object.retain(|name, value| {
                !value.is_null() || schema["properties"][name].get("default").is_none()
            });
            for (name, value) in object {
                let inner = schema["properties"].get(name).unwrap_or_else(|| &schema["additionalProperties"]);
                prune_nulls(inner, value);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| prune_nulls(&schema["items"], item)),
        _ => {}
    }
}
