//! The token that a private listener asks for, in a file.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use subtle::ConstantTimeEq;

/// The file with the token. It is read for each request that needs it, so that the token can be changed.
#[derive(Clone, Debug)]
pub struct Token {
    pub path: PathBuf,
}

impl Token {
    /// The token in a file; fails if the file can't be read or holds none.
    pub fn in_file(path: &Path) -> io::Result<Token> {
        let token = Token { path: path.to_owned() };
        token.read()?;
        Ok(token)
    }

    /// Whether every user of this machine may read it.
    pub fn is_world_readable(&self) -> bool {
        fs::metadata(&self.path).is_ok_and(|file| file.permissions().mode() & 0o004 != 0)
    }

    fn read(&self) -> io::Result<String> {
        let text = fs::read_to_string(&self.path)?;
        match text.trim() {
            "" => Err(io::Error::new(io::ErrorKind::InvalidData, "it holds no token")),
            token => Ok(token.to_owned()),
        }
    }

    /// Whether `shown` is the token; not if the file can't be read.
    pub fn is(&self, shown: &[u8]) -> bool {
        self.read().is_ok_and(|token| token.as_bytes().ct_eq(shown).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_can_be_changed_in_place_and_must_not_be_empty() {
        let path = std::env::temp_dir().join(format!("effe-token-{}-in-place", std::process::id()));
        fs::write(&path, "s3cret\n").unwrap();
        let token = Token::in_file(&path).unwrap();
        fs::write(&path, "another").unwrap();
        assert!(token.is(b"another") && !token.is(b"s3cret"));
        fs::write(&path, " \n").unwrap();
        assert!(!token.is(b"") && Token::in_file(&path).is_err());
        fs::remove_file(&path).unwrap();
    }
}
