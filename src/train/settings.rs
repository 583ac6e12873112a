//! How a config is read: TOML texts and `key=value` settings over the defaults, each key known, each value of its type.

use super::{Config, KEYS};
use crate::attrs::{AttrDoc, Kind, nearest};
use crate::error::{Error, Result};
use toml::{Table, Value};

/// A config from TOML texts (with their origins, later ones win) and `key=value` settings, over the defaults. Texts that name
/// another optimizer do not inherit the attributes of the default one.
pub(super) fn read(texts: &[(String, String)], settings: &[String]) -> Result<Config> {
    let mut whole = Table::try_from(Config::default()).expect("a config is plain data");
    let name = |t: &Table| get(t, "optimizer.name").cloned();
    let default = name(&whole);
    let mut given = Table::new();
    for (text, origin) in texts {
        let table: Table = text.parse().map_err(|e: toml::de::Error| {
            Error::config("toml", format!("{origin} cannot be read: {}", e.to_string().trim_end()))
        })?;
        known(&table, "", text, origin)?;
        merge(&mut given, table);
    }
    // Another codec's attributes are not those of the one that is set now.
    let codec =
        settings.iter().rev().find_map(|s| s.split_once('=').filter(|(key, _)| key.trim() == "codec.name"));
    if codec
        .is_some_and(|(_, new)| get(&given, "codec.name").is_some_and(|old| *old != parse_value(new.trim())))
        && let Some(Value::Table(c)) = given.get_mut("codec")
    {
        c.retain(|key, _| key == "name" || key == "reset");
    }
    for setting in settings {
        let (key, value) = setting
            .split_once('=')
            .ok_or_else(|| Error::Usage(format!("--set {setting}: write it as key=value")))?;
        let (key, value) = (key.trim(), value.trim());
        if !KEYS.iter().any(|(k, _)| *k == key) {
            return Err(unknown(key, "--set"));
        }
        merge(&mut given, nested(key, parse_value(value)));
    }
    if name(&given).is_some_and(|n| Some(n) != default)
        && let Some(Value::Table(o)) = whole.get_mut("optimizer")
    {
        o.retain(|k, _| k == "name" || k == "lr");
    }
    merge(&mut whole, given);
    check_types(&whole)?;
    Config::deserialize_whole(whole)
}

impl Config {
    fn deserialize_whole(whole: Table) -> Result<Config> {
        // Key by key, so that an error names its key: serde's own message knows the value only.
        for (key, _) in KEYS {
            if let Some(value) = get(&whole, key) {
                let mut one = Table::try_from(Config::default()).expect("a config is plain data");
                merge(&mut one, nested(key, value.clone()));
                if let Err(e) = one.try_into::<Config>() {
                    let text = e.to_string();
                    let text =
                        text.lines().find(|l| !l.trim().is_empty()).unwrap_or_default().trim().to_string();
                    return Err(Error::config(*key, format!("is {value}: {text}")));
                }
            }
        }
        whole.try_into::<Config>().map_err(|e| Error::config("toml", e.to_string()))
    }
}

/// Error on the first key that is not in [`KEYS`].
fn known(table: &Table, prefix: &str, text: &str, origin: &str) -> Result<()> {
    for (name, value) in table {
        let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        let section = KEYS.iter().any(|(k, _)| k.starts_with(&format!("{key}.")));
        match value {
            Value::Table(t) if section => known(t, &key, text, origin)?,
            _ if KEYS.iter().any(|(k, _)| *k == key) => {}
            _ => {
                let line = text
                    .lines()
                    .position(|l| l.trim_start().trim_start_matches('[').starts_with(name.as_str()));
                let place = line.map_or(origin.to_string(), |l| format!("{origin}, line {}", l + 1));
                return Err(unknown(&key, &place));
            }
        }
    }
    Ok(())
}

fn unknown(key: &str, place: &str) -> Error {
    let near = nearest(key, KEYS.iter().map(|(k, _)| *k));
    Error::config(key, format!("is unknown ({place}){near}; `train --help` lists all keys"))
}

/// Error on a value of another type than the default's. An integer is taken where a real is wanted.
fn check_types(whole: &Table) -> Result<()> {
    let mut full = Config::default();
    let one = |attr: &AttrDoc| (attr.name.to_string(), sample(attr.kind));
    full.optimizer.attrs.extend(crate::optim::ALL.iter().flat_map(|e| e.attrs).map(one));
    full.codec.attrs.extend(crate::comm::codec::ALL.iter().flat_map(|e| e.attrs).map(one));
    let default = Table::try_from(full).expect("a config is plain data");
    for (key, _) in KEYS {
        let (Some(value), Some(want)) = (get(whole, key), get(&default, key)) else { continue };
        let fits = value.same_type(want) || (want.is_float() && value.is_integer());
        if !fits {
            let what = format!("is {value} ({}), but must be {}", value.type_str(), article(want));
            return Err(Error::config(*key, what));
        }
        if value.as_integer().is_some_and(|v| v < 0) && !want.is_float() {
            return Err(Error::config(*key, format!("is {value}, but must not be negative")));
        }
    }
    Ok(())
}

/// A value of this kind.
fn sample(kind: Kind) -> Value {
    match kind {
        Kind::Real => Value::Float(0.0),
        Kind::Bool => Value::Boolean(false),
        Kind::Int | Kind::Word => Value::Integer(0),
        Kind::Ints | Kind::Choice(_) => Value::String(String::new()),
    }
}

fn article(v: &Value) -> String {
    match v {
        Value::Integer(_) => "an integer, such as ".to_string() + &v.to_string(),
        Value::Float(_) => "a number, such as ".to_string() + &v.to_string(),
        Value::Boolean(_) => "true or false".into(),
        _ => "text, such as ".to_string() + &v.to_string(),
    }
}

fn get<'t>(table: &'t Table, key: &str) -> Option<&'t Value> {
    match key.split_once('.') {
        None => table.get(key),
        Some((section, rest)) => get(table.get(section)?.as_table()?, rest),
    }
}

fn nested(key: &str, value: Value) -> Table {
    let mut table = Table::new();
    match key.split_once('.') {
        None => table.insert(key.into(), value),
        Some((section, rest)) => table.insert(section.into(), Value::Table(nested(rest, value))),
    };
    table
}

/// A value of the command line: TOML where it is TOML, else text.
fn parse_value(text: &str) -> Value {
    let parsed = format!("v = {text}").parse::<Table>().ok().and_then(|mut t| t.remove("v"));
    parsed.unwrap_or_else(|| Value::String(text.into()))
}

fn merge(into: &mut Table, from: Table) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(Value::Table(a)), Value::Table(b)) => merge(a, b),
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bad(text: &str) -> String {
        Config::parse(text, "x.toml").and_then(|c| c.validate()).unwrap_err().to_string()
    }

    #[test]
    fn a_config_round_trips_and_settings_win() {
        let c = Config::resolve(
            None,
            &["model.dim=64".into(), "optimizer.lr=0.01".into(), "data.path=digits".into()],
        );
        let c = c.unwrap();
        assert_eq!((c.model.dim, c.optimizer.lr, c.data.path.as_str()), (64, 0.01, "digits"));
        assert_eq!(Config::parse(&c.to_toml(), "again").unwrap(), c);
        let sgd = Config::parse("[optimizer]\nname = \"sgd\"\nmomentum = 0.9", "x").unwrap();
        let attrs: Vec<&String> = sgd.optimizer.attrs.keys().collect();
        assert_eq!(attrs, ["momentum"], "the attributes of the default optimizer are not inherited");
        let again = Config::parse(&sgd.to_toml(), "again").unwrap();
        assert_eq!(again, sgd);
    }

    #[test]
    fn wrong_keys_types_and_values_are_named() {
        let e = bad("steps = 5\n[model]\nlayer = 3");
        assert!(e.contains("model.layer") && e.contains("model.layers") && e.contains("line 3"), "{e}");
        assert!(
            bad("batch_size = \"many\"").contains("batch_size")
                && bad("batch_size = \"many\"").contains("many")
        );
        assert!(bad("[optimizer]\nlr = -1.0").contains("optimizer.lr"));
        assert!(bad("[optimizer]\nlr = nan").contains("optimizer.lr"));
        assert!(bad("steps = 0").contains("steps"));
        assert!(bad("steps = -3").contains("-3"));
        assert!(bad("[model]\nkind = \"gptt\"").contains("model.kind"));
        let e = bad("precision = \"bf15\"");
        assert!(e.contains("precision") && e.contains("bf15") && e.contains("bf16"), "{e}");
        assert!(bad("[model]\ndim = 130").contains("model.dim"));
        assert!(bad("steps = = 3").contains("x.toml"));
    }
}
