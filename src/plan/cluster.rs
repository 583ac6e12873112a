//! A cluster as a TOML file describes it.

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};

/// What a message between two devices costs: α + Nβ.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Link {
    /// Seconds until a message gets going.
    pub alpha: f64,
    /// Seconds for each byte of it; of what one device sends, while all others send too.
    pub beta: f64,
}

/// What fails.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Risk {
    /// Mean seconds between failures of one device, with its share of all else that ends a run.
    pub mtbf: f64,
    /// Seconds from a failure until ranks have met again, without the reading of the snapshot.
    pub restart: f64,
    /// Bytes of snapshots a second, of all devices together, written and read.
    pub snapshot_bandwidth: f64,
}

/// In what numbers a device trains.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Width {
    /// Weights, gradients and activations of 4 bytes, 8 of optimizer state: 16 for each parameter, as ringtape itself.
    #[serde(rename = "f32")]
    F32,
    /// Weights, gradients and activations of 2 bytes; 12 of state: f32 weights and Adam's two moments. 16 too.
    #[serde(rename = "bf16")]
    Bf16,
}

impl Width {
    /// Bytes of a weight, of a gradient, of an activation.
    pub fn number(self) -> f64 {
        match self {
            Width::F32 => 4.0,
            Width::Bf16 => 2.0,
        }
    }

    /// Bytes of optimizer state for each parameter: what ZeRO-1 deals out.
    pub fn state(self) -> f64 {
        match self {
            Width::F32 => 8.0,
            Width::Bf16 => 12.0,
        }
    }
}

/// Devices and what joins them. Seconds, bytes, operations a second.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cluster {
    /// What it is called.
    #[serde(default)]
    pub name: String,
    /// Devices in all.
    pub devices: usize,
    /// Devices that share a node's fast links.
    pub devices_per_node: usize,
    /// Peak of a device in the numbers of `precision`.
    pub flops: f64,
    /// Share of the peak that a step's products reach where nothing waits.
    pub utilisation: f64,
    /// Bytes of a device that training may use.
    pub memory: f64,
    /// Numbers of training.
    pub precision: Width,
    /// Seconds of the optimizer's step for each parameter.
    #[serde(default)]
    pub update: f64,
    /// Seconds for each byte that is summed, where that does not hide behind the sending.
    #[serde(default)]
    pub gamma: f64,
    /// Links within a node.
    pub within: Link,
    /// Links between nodes.
    pub between: Link,
    /// What fails, and how runs go on; None: failures and snapshots are not counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failures: Option<Risk>,
}

/// Clusters that come with ringtape, by name.
pub const NAMES: &[(&str, &str)] =
    &[("small", include_str!("clusters/small.toml")), ("large", include_str!("clusters/large.toml"))];

/// Most devices that are planned for.
const MOST: usize = 1 << 20;

impl Cluster {
    /// The one of [`NAMES`] that is called so.
    pub fn named(name: &str) -> Option<Result<Cluster>> {
        NAMES.iter().find(|(n, _)| *n == name).map(|(name, text)| Cluster::parse(text, name))
    }

    /// Reads a description that came from `origin`. Errors name it, the key and what it takes.
    pub fn parse(text: &str, origin: &str) -> Result<Cluster> {
        let read = toml::from_str::<Cluster>(text);
        let cluster =
            read.map_err(|e| Error::Usage(format!("cluster {origin}: {}", e.to_string().trim_end())))?;
        cluster.validate().map(|()| cluster)
    }

    /// Errors on what no cluster is like.
    pub fn validate(&self) -> Result<()> {
        let counts = [("devices", self.devices), ("devices_per_node", self.devices_per_node)];
        for (key, n) in counts {
            if n == 0 || n > MOST {
                return Err(wrong(key, n, &format!("between 1 and {MOST}")));
            }
        }
        let mut positive = vec![("flops", self.flops), ("memory", self.memory)];
        if let Some(risk) = &self.failures {
            positive.push(("failures.mtbf", risk.mtbf));
            positive.push(("failures.snapshot_bandwidth", risk.snapshot_bandwidth));
        }
        if let Some((key, x)) = positive.into_iter().find(|(_, x)| !(*x > 0.0 && x.is_finite())) {
            return Err(wrong(key, x, "a number above 0"));
        }
        if !(self.utilisation > 0.0 && self.utilisation <= 1.0) {
            return Err(wrong("utilisation", self.utilisation, "above 0 and at most 1, as 0.4"));
        }
        let times = [
            ("update", self.update),
            ("gamma", self.gamma),
            ("failures.restart", self.failures.map_or(0.0, |risk| risk.restart)),
            ("within.alpha", self.within.alpha),
            ("within.beta", self.within.beta),
            ("between.alpha", self.between.alpha),
            ("between.beta", self.between.beta),
        ];
        for (key, x) in times {
            if !(x >= 0.0 && x.is_finite()) {
                return Err(wrong(key, x, "seconds, 0 or more"));
            }
        }
        Ok(())
    }

    /// Operations a second that a device does.
    pub fn rate(&self) -> f64 {
        self.flops * self.utilisation
    }
}

fn wrong(key: &str, seen: impl std::fmt::Display, wanted: &str) -> Error {
    Error::config(format!("cluster: {key}"), format!("is {seen}, but must be {wanted}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_come_along_are_sound_and_differ() {
        for (name, _) in NAMES {
            let cluster = Cluster::named(name).unwrap().unwrap();
            assert_eq!(cluster.name, *name);
            assert!(cluster.within.beta < cluster.between.beta, "{name}");
        }
        assert!(Cluster::named("nowhere").is_none());
    }

    #[test]
    fn errors_name_the_key() {
        let text = NAMES[0].1;
        let bad = |from: &str, to: &str| {
            assert!(text.contains(from), "{from}");
            Cluster::parse(&text.replace(from, to), "x.toml").unwrap_err()
        };
        for (from, to, said) in [
            ("utilisation = ", "utilisation = 2", "utilisation"),
            ("devices = ", "devices = -", "devices"),
            ("mtbf = ", "mtfb = ", "mtfb"),
            ("beta = ", "beta = -", "beta"),
            ("precision = \"bf16\"", "precision = \"f8\"", "f8"),
        ] {
            let e = bad(from, to);
            assert!(e.to_string().contains(said) && e.exit_code() == 2, "{e}");
        }
        let calm = text.split("[failures]").next().unwrap();
        assert_eq!(Cluster::parse(calm, "x").unwrap().failures, None);
    }
}
