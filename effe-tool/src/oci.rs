//! Images as archives.
