//! Values on the wire: parameters in PostgreSQL's text form, which it reads for every type, and results from its binary form.

use std::error::Error;
use std::fmt::Write;

use bytes::BytesMut;
use serde_json::Value;
use tokio_postgres::types::{Format, FromSql, IsNull, Kind, ToSql, Type, to_sql_checked};

use crate::sources::declared::sql::rows;

/// A parameter.
#[derive(Debug)]
pub(super) struct Sent(Option<String>);

impl Sent {
    pub(super) fn of(value: &Value) -> Self {
        Self(match value {
            Value::Null => None,
            Value::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        })
    }
}

impl ToSql for Sent {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        match &self.0 {
            None => Ok(IsNull::Yes),
            Some(text) => {
                out.extend_from_slice(text.as_bytes());
                Ok(IsNull::No)
            }
        }
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn encode_format(&self, _: &Type) -> Format {
        Format::Text
    }

    to_sql_checked!();
}

/// A value as it arrived.
pub(super) struct Raw<'r>(pub(super) &'r [u8]);

impl<'r> FromSql<'r> for Raw<'r> {
    fn from_sql(_: &Type, raw: &'r [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Self(raw))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

/// Whether values of this type can be shown.
pub(super) fn is_known(of: &Type) -> bool {
    match of.kind() {
        Kind::Array(element) | Kind::Domain(element) => is_known(element),
        Kind::Enum(_) => true,
        _ => KNOWN.contains(of) || of.name() == "citext",
    }
}

const KNOWN: [Type; 22] = [
    Type::BOOL,
    Type::INT2,
    Type::INT4,
    Type::INT8,
    Type::OID,
    Type::FLOAT4,
    Type::FLOAT8,
    Type::NUMERIC,
    Type::TEXT,
    Type::VARCHAR,
    Type::BPCHAR,
    Type::NAME,
    Type::CHAR,
    Type::UNKNOWN,
    Type::XML,
    Type::JSON,
    Type::JSONB,
    Type::UUID,
    Type::DATE,
    Type::TIMESTAMP,
    Type::TIMESTAMPTZ,
    Type::BYTEA,
];

/// A value of this type; its bytes in base64 if they are not what the type says.
pub(super) fn of(of_type: &Type, raw: &[u8]) -> Value {
    read(of_type, raw).unwrap_or_else(|| rows::bytes(raw))
}

fn read(of_type: &Type, raw: &[u8]) -> Option<Value> {
    if let Kind::Domain(inner) = of_type.kind() {
        return read(inner, raw);
    }
    if let Kind::Array(element) = of_type.kind() {
        return array(element, raw);
    }
    Some(match *of_type {
        Type::BOOL => (*raw.first()? != 0).into(),
        Type::INT2 => i16::from_be_bytes(raw.try_into().ok()?).into(),
        Type::INT4 => i32::from_be_bytes(raw.try_into().ok()?).into(),
        Type::INT8 => rows::integer(i64::from_be_bytes(raw.try_into().ok()?)),
        Type::OID => u32::from_be_bytes(raw.try_into().ok()?).into(),
        Type::FLOAT4 => rows::real(f32::from_be_bytes(raw.try_into().ok()?).into()),
        Type::FLOAT8 => rows::real(f64::from_be_bytes(raw.try_into().ok()?)),
        Type::NUMERIC => numeric(raw)?.into(),
        Type::JSON => exact(serde_json::from_slice(raw).ok()?),
        Type::JSONB => exact(serde_json::from_slice(raw.strip_prefix(&[1])?).ok()?),
        Type::UUID => uuid(raw)?.into(),
        Type::DATE => date(i64::from(i32::from_be_bytes(raw.try_into().ok()?))).into(),
        Type::TIMESTAMP => moment(i64::from_be_bytes(raw.try_into().ok()?)).into(),
        Type::TIMESTAMPTZ => format!("{}Z", moment(i64::from_be_bytes(raw.try_into().ok()?))).into(),
        Type::BYTEA => rows::bytes(raw),
        _ => std::str::from_utf8(raw).ok()?.into(),
    })
}

/// JSON in which integers that readers would round are strings.
fn exact(value: Value) -> Value {
    match value {
        Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(whole), _) => rows::integer(whole),
            (None, Some(large)) => large.to_string().into(),
            _ => Value::Number(number),
        },
        Value::Array(all) => all.into_iter().map(exact).collect(),
        Value::Object(all) => all.into_iter().map(|(name, value)| (name, exact(value))).collect(),
        other => other,
    }
}

/// Takes this many bytes from the front.
fn take<const N: usize>(raw: &mut &[u8]) -> Option<[u8; N]> {
    let (first, rest) = raw.split_at_checked(N)?;
    *raw = rest;
    first.try_into().ok()
}

/// An array, of which the first dimension is shown: dimensions, a flag, the element's type, then length and lower bound of each
/// dimension, then the elements with their lengths.
fn array(element: &Type, mut raw: &[u8]) -> Option<Value> {
    let dimensions = i32::from_be_bytes(take(&mut raw)?);
    take::<8>(&mut raw)?;
    for _ in 0..dimensions {
        take::<8>(&mut raw)?;
    }
    let mut elements = Vec::new();
    while !raw.is_empty() {
        let length = i32::from_be_bytes(take(&mut raw)?);
        let Ok(length) = usize::try_from(length) else {
            elements.push(Value::Null);
            continue;
        };
        let (one, rest) = raw.split_at_checked(length)?;
        raw = rest;
        elements.push(of(element, one));
    }
    Some(Value::Array(elements))
}

/// A decimal number as text, because JSON's numbers would round it: groups of four digits, the weight of the first, a sign and
/// how many digits follow the point.
fn numeric(mut raw: &[u8]) -> Option<String> {
    let groups = usize::from(u16::from_be_bytes(take(&mut raw)?));
    let weight = i16::from_be_bytes(take(&mut raw)?);
    let sign = u16::from_be_bytes(take(&mut raw)?);
    let scale = usize::from(u16::from_be_bytes(take(&mut raw)?));
    match sign {
        0xC000 => return Some("NaN".to_owned()),
        0xD000 => return Some("Infinity".to_owned()),
        0xF000 => return Some("-Infinity".to_owned()),
        _ => {}
    }
    let mut digits = Vec::with_capacity(groups);
    for _ in 0..groups {
        digits.push(u16::from_be_bytes(take(&mut raw)?));
    }
    let group = |at: i32| usize::try_from(at).ok().and_then(|at| digits.get(at)).copied().unwrap_or(0);
    let weight = i32::from(weight);
    let mut text = String::from(if sign == 0x4000 { "-" } else { "" });
    if weight < 0 {
        text.push('0');
    }
    for at in 0..=weight.max(-1) {
        let _ = if at == 0 { write!(text, "{}", group(0)) } else { write!(text, "{:04}", group(at)) };
    }
    if scale > 0 {
        let mut fraction = String::new();
        for at in 0..scale.div_ceil(4) {
            let _ = write!(fraction, "{:04}", group(weight + 1 + i32::try_from(at).ok()?));
        }
        text.push('.');
        text.push_str(fraction.get(..scale)?);
    }
    Some(text)
}

fn uuid(raw: &[u8]) -> Option<String> {
    let hex = data_encoding::HEXLOWER.encode(raw);
    (raw.len() == 16)
        .then(|| format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]))
}

/// A day, counted from 2000-01-01, in the proleptic Gregorian calendar.
fn date(days: i64) -> String {
    // Days since 0000-03-01, so that the leap day is the last one of a year.
    let days = days + 730_425;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

/// A moment in microseconds since 2000-01-01.
fn moment(micros: i64) -> String {
    match micros {
        i64::MAX => return "infinity".to_owned(),
        i64::MIN => return "-infinity".to_owned(),
        _ => {}
    }
    let (days, rest) = (micros.div_euclid(86_400_000_000), micros.rem_euclid(86_400_000_000));
    let (seconds, micros) = (rest / 1_000_000, rest % 1_000_000);
    let mut text =
        format!("{}T{:02}:{:02}:{:02}", date(days), seconds / 3600, seconds / 60 % 60, seconds % 60);
    if micros > 0 {
        let _ = write!(text, ".{micros:06}");
    }
    text
}
