//! One entry of a `files` snapshot, or the one object of any other payload.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

/// A path or a link target as the raw bytes that the file system gave. In JSON it is text where the bytes
/// are UTF-8, and `{"base64": "..."}` where they are not.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RawPath(pub Vec<u8>);

impl RawPath {
    /// For messages: what is not valid UTF-8 is replaced, and control characters are escaped.
    pub fn display(&self) -> String {
        String::from_utf8_lossy(&self.0).escape_debug().to_string()
    }
}

impl From<&str> for RawPath {
    fn from(text: &str) -> Self {
        Self(text.as_bytes().to_vec())
    }
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum PathForm {
    Text(String),
    Bytes { base64: String },
}

impl Serialize for RawPath {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.0) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => PathForm::Bytes { base64: STANDARD.encode(&self.0) }.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for RawPath {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match PathForm::deserialize(deserializer)? {
            PathForm::Text(text) => Ok(Self(text.into_bytes())),
            PathForm::Bytes { base64 } => STANDARD.decode(base64).map(Self).map_err(serde::de::Error::custom),
        }
    }
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A symbolic link, never followed.
    Symlink {
        /// What it points at, as stored in the link.
        target: RawPath,
    },
    /// A directory.
    Directory,
}

/// A named object and what the file system knew of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Entry {
    /// Relative to the root of the snapshot, `/` between the parts, never `.` or `..`.
    pub path: RawPath,
    /// File, link or directory.
    #[serde(flatten)]
    pub kind: EntryKind,
    /// Permission bits, with set-user-id, set-group-id and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time: seconds and nanoseconds since 1970.
    pub mtime: (i64, u32),
    /// The body's length before any transform; 0 for what is not a regular file.
    #[serde(default)]
    pub size: u64,
    /// SHA-256 of the body before any transform, in hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// Extended attributes, sorted by name; access control lists are among them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub xattrs: Vec<Attribute>,
    /// The file has holes: parts that were never written, read as zeros and take no room.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub sparse: bool,
    /// The path of an earlier entry that is another name of the same file (a hard link).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub linked_to: Option<RawPath>,
    /// The body as the vault stores it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stored: Option<StoredBody>,
    /// Inode and ctime, by which an unchanged file is known without reading it. Not part of the content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen: Option<Seen>,
}

impl Entry {
    /// The one object of a payload that is not a tree of files.
    pub fn object(name: impl Into<String>) -> Self {
        Self {
            path: RawPath(name.into().into_bytes()),
            kind: EntryKind::File,
            mode: 0o600,
            uid: 0,
            gid: 0,
            mtime: (0, 0),
            size: 0,
            sha256: None,
            xattrs: Vec::new(),
            sparse: false,
            linked_to: None,
            stored: None,
            seen: None,
        }
    }

    /// Notes that its bytes are encoded, around what they were before. The sink that stores it fills in what is not known yet.
    pub fn encoded(&mut self, name: &str) {
        let nothing = || StoredBody { sha256: String::new(), bytes: 0, encodings: Vec::new() };
        self.stored.get_or_insert_with(nothing).encodings.push(name.to_owned());
    }

    /// Whether two entries are the same content, whatever inode holds it.
    pub fn same_as(&self, other: &Self) -> bool {
        let mut other = other.clone();
        other.seen.clone_from(&self.seen);
        *self == other
    }
}

/// An extended attribute, see xattr(7).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Attribute {
    /// With its namespace, such as `user.comment`.
    pub name: RawPath,
    /// Its bytes, in base64.
    #[serde(serialize_with = "to_base64", deserialize_with = "from_base64")]
    pub value: Vec<u8>,
}

fn to_base64<S: serde::Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&STANDARD.encode(bytes))
}

fn from_base64<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
    STANDARD.decode(text.as_bytes()).map_err(serde::de::Error::custom)
}

/// The stored form of a body: a content-addressed object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct StoredBody {
    /// SHA-256 of the stored bytes, in hex, which is also its name under `objects/`.
    pub sha256: String,
    /// Length of the stored bytes.
    pub bytes: u64,
    /// The encodings that were applied to it, the first one first, such as `zstd`. Format 1 has another name for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty", alias = "encoding")]
    pub encodings: Vec<String>,
}

/// What tells an untouched file from a touched one without reading it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Seen {
    /// Inode number.
    pub inode: u64,
    /// Change time: seconds and nanoseconds since 1970.
    pub ctime: (i64, u32),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_no_utf8_survive_json() {
        for bytes in [b"plain".to_vec(), "accènt".as_bytes().to_vec(), vec![b'a', 0xff, 0xfe], b"new\nline".to_vec()] {
            let path = RawPath(bytes);
            let json = serde_json::to_string(&path).unwrap();
            assert_eq!(serde_json::from_str::<RawPath>(&json).unwrap(), path, "{json}");
        }
    }

    #[test]
    fn an_entry_without_attributes_has_the_form_that_it_always_had() {
        let entry = Entry { sha256: Some("ab".into()), ..Entry::object("a") };
        let old = r#"{"path":"a","kind":"file","mode":384,"uid":0,"gid":0,"mtime":[0,0],"size":0,"sha256":"ab"}"#;
        assert_eq!(serde_json::to_string(&entry).unwrap(), old);
        assert_eq!(serde_json::from_str::<Entry>(old).unwrap(), entry);

        let more = Entry {
            xattrs: vec![Attribute { name: "user.x".into(), value: vec![0, 0xff] }],
            sparse: true,
            linked_to: Some(RawPath(vec![0xff])),
            ..entry
        };
        let json = serde_json::to_string(&more).unwrap();
        let added = r#","xattrs":[{"name":"user.x","value":"AP8="}],"sparse":true,"linked-to":{"base64":"/w=="}}"#;
        assert_eq!(json, old.trim_end_matches('}').to_owned() + added);
        assert_eq!(serde_json::from_str::<Entry>(&json).unwrap(), more);
    }
}
