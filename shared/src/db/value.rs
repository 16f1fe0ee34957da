//! Column values, independent of the engine: conversions from our types to parameters and back.

use std::borrow::Cow;

/// A value of a column.
#[derive(Clone, PartialEq, Debug)]
pub enum Value<'v> {
    Null,
    Integer(i64),
    Real(f64),
    Text(Cow<'v, str>),
    Blob(Cow<'v, [u8]>),
}

impl Value<'_> {
    fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Integer(_) => "an integer",
            Self::Real(_) => "a real number",
            Self::Text(_) => "text",
            Self::Blob(_) => "a blob",
        }
    }
}

/// A column does not hold the expected value.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("it is {found}, not {wanted}")]
pub struct WrongValue {
    found: String,
    wanted: &'static str,
}

impl WrongValue {
    /// A value of the wrong type.
    pub fn kind(found: &Value<'_>, wanted: &'static str) -> Self {
        Self { found: found.kind().to_owned(), wanted }
    }

    /// A value of the right type with an invalid content.
    pub fn meaning(why: impl std::fmt::Display, wanted: &'static str) -> Self {
        Self { found: why.to_string(), wanted }
    }
}

/// A type that can be bound to a parameter.
pub trait ToColumn {
    fn to_column(&self) -> Value<'_>;
}

/// A type that can be read from a column.
pub trait FromColumn: Sized {
    /// # Errors
    /// If the column holds another type or an invalid value.
    fn from_column(value: Value<'_>) -> Result<Self, WrongValue>;
}

/// The parameters of a statement: `params![…]`, or `[]` for none.
pub trait Params<'p> {
    fn values(self) -> &'p [&'p dyn ToColumn];
}

impl<'p> Params<'p> for &'p [&'p dyn ToColumn] {
    fn values(self) -> &'p [&'p dyn ToColumn] {
        self
    }
}

impl<'p> Params<'p> for [&'p dyn ToColumn; 0] {
    fn values(self) -> &'p [&'p dyn ToColumn] {
        &[]
    }
}

/// The parameters of a statement, in the order of its `?1`, `?2`…
#[macro_export]
macro_rules! params {
    ($($value:expr),* $(,)?) => {
        &[$(&$value as &dyn $crate::db::ToColumn),*] as &[&dyn $crate::db::ToColumn]
    };
}
pub use params;

impl<T: ToColumn + ?Sized> ToColumn for &T {
    fn to_column(&self) -> Value<'_> {
        (**self).to_column()
    }
}

impl<T: ToColumn> ToColumn for Option<T> {
    fn to_column(&self) -> Value<'_> {
        self.as_ref().map_or(Value::Null, T::to_column)
    }
}

impl<T: FromColumn> FromColumn for Option<T> {
    fn from_column(value: Value<'_>) -> Result<Self, WrongValue> {
        if value == Value::Null { Ok(None) } else { T::from_column(value).map(Some) }
    }
}

impl ToColumn for i64 {
    fn to_column(&self) -> Value<'_> {
        Value::Integer(*self)
    }
}

impl FromColumn for i64 {
    fn from_column(value: Value<'_>) -> Result<Self, WrongValue> {
        match value {
            Value::Integer(number) => Ok(number),
            other => Err(WrongValue::kind(&other, "an integer")),
        }
    }
}

/// An integer that always fits into a column.
macro_rules! integer_column {
    ($($name:ident),*) => {$(
        impl ToColumn for $name {
            fn to_column(&self) -> Value<'_> {
                Value::Integer(i64::from(*self))
            }
        }

        impl FromColumn for $name {
            fn from_column(value: Value<'_>) -> Result<Self, WrongValue> {
                let number = i64::from_column(value)?;
                Self::try_from(number).map_err(|_| WrongValue::meaning(number, stringify!($name)))
            }
        }
    )*};
}
integer_column!(i32, u8, u16, u32);

impl ToColumn for bool {
    fn to_column(&self) -> Value<'_> {
        Value::Integer(i64::from(*self))
    }
}

impl FromColumn for bool {
    fn from_column(value: Value<'_>) -> Result<Self, WrongValue> {
        Ok(i64::from_column(value)? != 0)
    }
}

impl ToColumn for f64 {
    fn to_column(&self) -> Value<'_> {
        Value::Real(*self)
    }
}

impl FromColumn for f64 {
    fn from_column(value: Value<'_>) -> Result<Self, WrongValue> {
        match value {
            Value::Real(number) => Ok(number),
            other => Err(WrongValue::kind(&other, "a real number")),
        }
    }
}

impl ToColumn for str {
    fn to_column(&self) -> Value<'_> {
        Value::Text(Cow::Borrowed(self))
    }
}

impl ToColumn for String {
    fn to_column(&self) -> Value<'_> {
        self.as_str().to_column()
    }
}

impl FromColumn for String {
    fn from_column(value: Value<'_>) -> Result<Self, WrongValue> {
        match value {
            Value::Text(text) => Ok(text.into_owned()),
            other => Err(WrongValue::kind(&other, "text")),
        }
    }
}

impl ToColumn for [u8] {
    fn to_column(&self) -> Value<'_> {
        Value::Blob(Cow::Borrowed(self))
    }
}

impl ToColumn for Vec<u8> {
    fn to_column(&self) -> Value<'_> {
        self.as_slice().to_column()
    }
}

impl FromColumn for Vec<u8> {
    fn from_column(value: Value<'_>) -> Result<Self, WrongValue> {
        match value {
            Value::Blob(bytes) => Ok(bytes.into_owned()),
            other => Err(WrongValue::kind(&other, "a blob")),
        }
    }
}

/// A newtype over `String`, stored as it is.
macro_rules! text_column {
    ($name:ident) => {
        impl $crate::db::ToColumn for $name {
            fn to_column(&self) -> $crate::db::Value<'_> {
                $crate::db::ToColumn::to_column(self.as_str())
            }
        }

        impl $crate::db::FromColumn for $name {
            fn from_column(value: $crate::db::Value<'_>) -> Result<Self, $crate::db::WrongValue> {
                <String as $crate::db::FromColumn>::from_column(value).map(Self)
            }
        }
    };
}

/// A type stored as its `Display` text, and parsed with `FromStr`.
macro_rules! parsed_column {
    ($name:ident) => {
        impl $crate::db::ToColumn for $name {
            fn to_column(&self) -> $crate::db::Value<'_> {
                $crate::db::Value::Text(self.to_string().into())
            }
        }

        impl $crate::db::FromColumn for $name {
            fn from_column(value: $crate::db::Value<'_>) -> Result<Self, $crate::db::WrongValue> {
                let text = <String as $crate::db::FromColumn>::from_column(value)?;
                text.parse().map_err(|why| $crate::db::WrongValue::meaning(why, stringify!($name)))
            }
        }
    };
}

pub(crate) use {parsed_column, text_column};
