//! Header fields as requests and responses have them: one flat list from the socket to the lambda and back. Whoever
//! adds fields has checked them: a name is a token in lower case, a value has no control characters but tabs.

use std::{fmt, ops::Range};

/// Bytes of a name. h2 takes no longer ones.
const MAX_NAME: usize = u16::MAX as usize;

/// A list of fields in the order in which they came, in two buffers that are used again for the next message.
#[derive(Clone, Default)]
pub struct Fields {
    /// Being a `String`, it needs no check when a name is read.
    names: String,
    /// The values may be any bytes.
    values: Vec<u8>,
    at: Vec<Field>,
    /// Bytes in the buffers that belong to no field any more.
    n_unused: usize,
}

/// Where a field is.
#[derive(Clone)]
struct Field {
    name: Range<usize>,
    value: Range<usize>,
}

impl Fields {
    pub const NONE: Fields = Fields { names: String::new(), values: Vec::new(), at: Vec::new(), n_unused: 0 };

    pub fn clear(&mut self) {
        self.names.clear();
        self.values.clear();
        self.at.clear();
        self.n_unused = 0;
    }

    /// Adds a field that was checked.
    #[inline]
    pub fn append(&mut self, name: &str, value: &[u8]) {
        let begin = (self.names.len(), self.values.len());
        self.names.push_str(name);
        self.values.extend_from_slice(value);
        self.at.push(Field { name: begin.0..self.names.len(), value: begin.1..self.values.len() });
    }

    /// Adds a field whose name is a token, though perhaps not in lower case; the name as it is now.
    #[inline]
    pub fn append_token(&mut self, name: &str, value: &[u8]) -> &str {
        self.append(name, value);
        let begin = self.names.len() - name.len();
        self.names[begin..].make_ascii_lowercase();
        &self.names[begin..]
    }

    /// Adds a field that was checked, in the place of all that have its name.
    pub fn insert(&mut self, name: &str, value: &[u8]) {
        self.remove(name);
        self.append(name, value);
    }

    /// Takes all fields of a name out.
    pub fn remove(&mut self, name: &str) {
        let (names, n_unused) = (&self.names, &mut self.n_unused);
        self.at.retain(|field| {
            let stays = names[field.name.clone()] != *name;
            *n_unused += if stays { 0 } else { field.name.len() + field.value.len() };
            stays
        });
    }

    /// Leaves the first so many.
    pub fn truncate(&mut self, n: usize) {
        let Some(first) = self.at.get(n) else { return };
        let (name, value) = (first.name.start, first.value.start);
        let n_used: usize = self.at[n..].iter().map(|field| field.name.len() + field.value.len()).sum();
        // What `remove` has left between them goes too.
        self.n_unused -= self.names.len() - name + self.values.len() - value - n_used;
        self.names.truncate(name);
        self.values.truncate(value);
        self.at.truncate(n);
    }

    #[inline]
    pub fn len(&self) -> usize {
        self.at.len()
    }

    pub fn is_empty(&self) -> bool {
        self.at.is_empty()
    }

    /// Whether the nth field is this one.
    #[inline]
    pub fn is_nth(&self, n: usize, name: &[u8], value: &[u8]) -> bool {
        self.at
            .get(n)
            .is_some_and(|field| self.has_name(field, name) && self.values[field.value.clone()] == *value)
    }

    /// The first value that a name has; the name is in lower case.
    #[inline]
    pub fn get<'a>(&'a self, name: &str) -> Option<&'a [u8]> {
        let field = self.at.iter().find(|field| self.has_name(field, name.as_bytes()))?;
        Some(&self.values[field.value.clone()])
    }

    /// The first value that a name has, if it is text.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.get(name).and_then(|value| std::str::from_utf8(value).ok())
    }

    /// The value of a name that is there once.
    pub fn only<'a>(&'a self, name: &str) -> Option<&'a [u8]> {
        let mut values = self.get_all(name);
        values.next().filter(|_| values.next().is_none())
    }

    /// All values of a name, which is in lower case.
    #[inline]
    pub fn get_all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        let fields = self.at.iter().filter(move |field| self.has_name(field, name.as_bytes()));
        fields.map(|field| &self.values[field.value.clone()])
    }

    #[inline]
    pub fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// All fields, names in lower case.
    #[inline]
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &[u8])> + Clone {
        self.at.iter().map(|field| self.field(field))
    }

    /// What they take in HTTP/1.1.
    pub fn n_bytes(&self) -> usize {
        self.names.len() + self.values.len() - self.n_unused + 4 * self.at.len()
    }

    /// Whether the buffers are worth being kept.
    pub fn is_small(&self, n_bytes: usize) -> bool {
        self.names.capacity() + self.values.capacity() + self.at.capacity() * size_of::<Field>() <= n_bytes
    }

    #[inline]
    fn has_name(&self, field: &Field, name: &[u8]) -> bool {
        // The length tells mostly, and without a look at the bytes.
        field.name.len() == name.len() && self.names.as_bytes()[field.name.clone()] == *name
    }

    #[inline]
    fn field(&self, field: &Field) -> (&str, &[u8]) {
        (&self.names[field.name.clone()], &self.values[field.value.clone()])
    }
}

impl PartialEq for Fields {
    fn eq(&self, other: &Fields) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Fields {}

impl fmt::Debug for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |value| String::from_utf8_lossy(value).into_owned();
        f.debug_map().entries(self.iter().map(|(name, value)| (name, text(value)))).finish()
    }
}

impl<'a> FromIterator<(&'a str, &'a [u8])> for Fields {
    /// Of fields that were checked.
    fn from_iter<T: IntoIterator<Item = (&'a str, &'a [u8])>>(all: T) -> Fields {
        let mut fields = Fields::NONE;
        all.into_iter().for_each(|(name, value)| fields.append(name, value));
        fields
    }
}

/// The name of a field that may be sent, whose name and value these are (RFC 9110, section 5).
pub fn checked<'a>(name: &'a [u8], value: &[u8]) -> Option<&'a str> {
    let is_name = !name.is_empty() && name.len() <= MAX_NAME && name.iter().copied().all(is_tchar);
    let name = std::str::from_utf8(name).ok().filter(|_| is_name)?;
    value.iter().copied().all(is_value).then_some(name)
}

/// Whether a byte may stand in a token, such as a method or the name of a field (RFC 9110, section 5.6.2).
#[inline]
pub fn is_tchar(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Whether a byte may stand in a value.
#[inline]
fn is_value(byte: u8) -> bool {
    (byte >= b' ' && byte != 0x7f) || byte == b'\t'
}

#[cfg(test)]
mod tests {
    use super::*;

    /// False if it is no field.
    fn add(fields: &mut Fields, name: &[u8], value: &[u8]) -> bool {
        checked(name, value).map(|name| fields.append_token(name, value).len()).is_some()
    }

    #[test]
    fn fields_stay_in_order_and_are_found_by_name() {
        let mut fields = Fields::NONE;
        assert!(add(&mut fields, b"Set-Cookie", b"a=1") && add(&mut fields, b"x", b"\xff\t"));
        assert!(add(&mut fields, b"set-cookie", b"b=2"));
        assert_eq!(fields.get_all("set-cookie").collect::<Vec<_>>(), [b"a=1", b"b=2"]);
        assert_eq!((fields.only("set-cookie"), fields.only("x")), (None, Some(&b"\xff\t"[..])));
        assert_eq!((fields.text("x"), fields.has("X"), fields.n_bytes()), (None, false, 41));
        fields.insert("set-cookie", b"c");
        let all: Vec<_> = fields.iter().collect();
        assert_eq!(all, [("x", &b"\xff\t"[..]), ("set-cookie", b"c")]);
        assert_eq!(fields.n_bytes(), 22);
        fields.truncate(1);
        fields.append("y", b"z");
        assert_eq!(fields.iter().collect::<Vec<_>>(), [("x", &b"\xff\t"[..]), ("y", b"z")]);
        fields.remove("x");
        assert_eq!(fields.iter().collect::<Vec<_>>(), [("y", &b"z"[..])]);
        let is_first = |name, value| fields.is_nth(0, name, value);
        assert!(is_first(b"y", b"z") && !is_first(b"y", b"zz") && !is_first(b"x", b"z"));
        assert!(!fields.is_nth(1, b"y", b"z"));
        assert_eq!(fields.n_bytes(), 6);
        fields.truncate(0);
        assert_eq!(fields.n_bytes(), 0);
    }

    #[test]
    fn what_is_taken_is_a_field_for_others_too_and_the_other_way_round() {
        bolero::check!().with_type::<(Vec<u8>, Vec<u8>)>().for_each(|(name, value)| {
            let theirs =
                http::HeaderName::from_bytes(name).ok().zip(http::HeaderValue::from_bytes(value).ok());
            let mut fields = Fields::NONE;
            assert_eq!(add(&mut fields, name, value), theirs.is_some());
            if let Some((name, value)) = theirs {
                assert!(fields.iter().eq([(name.as_str(), value.as_bytes())]));
            }
        });
        let long = vec![b'n'; MAX_NAME + 1];
        assert!(checked(&long, b"").is_none() && checked(&long[1..], b"").is_some());
    }
}
