//! Sampler profile v1: every sampling parameter, its default and its range.
//!
//! A request digest covers all of them after defaults, so an engine's own defaults never decide an output. The table is
//! part of the contract: a changed default is a new profile version.

use serde_json::{Map, Number, Value};

use crate::jcs::MAX_SAFE_INTEGER;

/// The name of the one profile that exists.
pub const VERSION: &str = "v1";

/// A sampling parameter: its default and the values it may take, both ends included.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Parameter {
    /// The name in a request.
    pub name: &'static str,
    /// What a request that is silent gets, and what numbers it may name.
    pub kind: Kind,
}

/// What numbers a parameter takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// A whole number.
    Integer {
        /// Used when the request is silent.
        default: i64,
        /// The smallest allowed.
        min: i64,
        /// The largest allowed.
        max: i64,
    },
    /// Any number.
    Real {
        /// Used when the request is silent.
        default: f64,
        /// The smallest allowed.
        min: f64,
        /// The largest allowed.
        max: f64,
    },
}

const fn integer(name: &'static str, default: i64, min: i64, max: i64) -> Parameter {
    Parameter {
        name,
        kind: Kind::Integer { default, min, max },
    }
}

const fn real(name: &'static str, default: f64, min: f64, max: f64) -> Parameter {
    Parameter {
        name,
        kind: Kind::Real { default, min, max },
    }
}

/// Profile v1. `top_k: 0` and `repeat_last_n: 0` switch the step off.
pub const V1: &[Parameter] = &[
    real("temperature", 0.7, 0.0, 2.0),
    integer("top_k", 40, 0, 2_147_483_647),
    real("top_p", 0.95, 0.0, 1.0),
    real("min_p", 0.05, 0.0, 1.0),
    real("typical_p", 1.0, 0.0, 1.0),
    real("repeat_penalty", 1.0, 0.01, 2.0),
    integer("repeat_last_n", 64, 0, 2_147_483_647),
    real("presence_penalty", 0.0, -2.0, 2.0),
    real("frequency_penalty", 0.0, -2.0, 2.0),
];

impl Parameter {
    /// The default as JSON: whole parameters stay integers, the others keep their fraction.
    pub fn default_value(&self) -> Value {
        match self.kind {
            Kind::Integer { default, .. } => Value::from(default),
            Kind::Real { default, .. } => Value::from(default),
        }
    }

    /// The value to use, or nothing when it is not a number that the parameter takes.
    pub fn accept(&self, value: &Value) -> Option<Value> {
        let number = value.as_number()?;
        match self.kind {
            Kind::Integer { min, max, .. } => whole(number)
                .filter(|n| (min..=max).contains(n))
                .map(Value::from),
            Kind::Real { min, max, .. } => {
                let inside = number.as_f64().is_some_and(|n| (min..=max).contains(&n));
                inside.then(|| value.clone())
            }
        }
    }

    /// What is allowed, to finish the sentence "`name` must be …".
    pub fn allowed(&self) -> String {
        match self.kind {
            Kind::Integer { min, max, .. } => format!("an integer from {min} to {max}"),
            Kind::Real { min, max, .. } => format!("a number from {min} to {max}"),
        }
    }
}

/// The whole number that a JSON number is, if it is one: `40` and `40.0` are the same.
pub(crate) fn whole(number: &Number) -> Option<i64> {
    number.as_i64().or_else(|| {
        let real = number.as_f64()?;
        let safe = real.fract() == 0.0 && real.abs() <= MAX_SAFE_INTEGER as f64;
        safe.then_some(real as i64)
    })
}

/// All parameters at their defaults.
pub fn defaults() -> Map<String, Value> {
    V1.iter()
        .map(|parameter| (parameter.name.to_owned(), parameter.default_value()))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::jcs;

    fn parameter(name: &str) -> &'static Parameter {
        V1.iter().find(|p| p.name == name).unwrap()
    }

    #[test]
    fn test_the_defaults_are_those_of_the_contract() {
        assert_eq!(
            String::from_utf8(jcs::map_to_vec(&defaults())).unwrap(),
            "{\"frequency_penalty\":0,\"min_p\":0.05,\"presence_penalty\":0,\"repeat_last_n\":64,\"repeat_penalty\":1,\
             \"temperature\":0.7,\"top_k\":40,\"top_p\":0.95,\"typical_p\":1}"
        );
    }

    #[test]
    fn test_every_default_is_a_value_that_its_parameter_takes() {
        for parameter in V1 {
            assert_eq!(
                parameter.accept(&parameter.default_value()),
                Some(parameter.default_value())
            );
        }
    }

    #[test]
    fn test_integers_with_a_zero_fraction_become_integers() {
        assert_eq!(parameter("top_k").accept(&json!(40.0)), Some(json!(40)));
        assert_eq!(parameter("top_k").accept(&json!(40.5)), None);
    }

    #[test]
    fn test_values_outside_the_range_or_of_another_type_are_not_taken() {
        for (name, value) in [
            ("temperature", json!(-0.1)),
            ("temperature", json!(2.1)),
            ("temperature", json!("0.7")),
            ("temperature", json!(null)),
            ("top_p", json!(1.000_1)),
            ("repeat_last_n", json!(-1)),
            ("repeat_penalty", json!(0)),
        ] {
            assert_eq!(parameter(name).accept(&value), None, "{name} {value}");
        }
    }
}
