//! Znode paths: which are valid, and how they split.
//!
//! Counterpart: `PathUtils.validatePath`. Paths stay `&str` everywhere; this module is the one place
//! that judges them. Reads never call it (a bad path is just a missing node), writes always do.

/// The reserved subtree.
pub const ZOOKEEPER: &str = "/zookeeper";
/// Where quotas live.
pub const QUOTA: &str = "/zookeeper/quota";
/// The ensemble's configuration.
pub const CONFIG: &str = "/zookeeper/config";

/// Whether `path` names a znode: absolute, no empty, `.` or `..` component, no trailing slash, none
/// of the characters ZooKeeper refuses (client-protocol facts, section 7).
#[must_use]
pub fn is_valid(path: &str) -> bool {
    if path == "/" {
        return true;
    }
    let Some(rest) = path.strip_prefix('/') else {
        return false;
    };
    rest.split('/')
        .all(|part| !part.is_empty() && part != "." && part != "..")
        && path.chars().all(is_allowed)
}

/// Java judges UTF-16 units, so everything outside the basic plane (a surrogate pair there) is out.
fn is_allowed(c: char) -> bool {
    !matches!(c, '\u{0}'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{e000}'..='\u{f8ff}' | '\u{fff0}'..='\u{ffff}')
        && c <= '\u{ffff}'
}

/// The parent of a path that has one: `/a/b` gives `/a`, `/a` gives `/`; the root and anything
/// without a slash give `None`.
#[must_use]
pub fn parent(path: &str) -> Option<&str> {
    match path.rfind('/')? {
        0 if path.len() == 1 => None,
        0 => Some("/"),
        at => Some(&path[..at]),
    }
}

/// The last component: what `getChildren` of the parent lists.
#[must_use]
pub fn name(path: &str) -> &str {
    path.rfind('/').map_or(path, |at| &path[at + 1..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn valid_paths() {
        for path in [
            "/",
            "/a",
            "/a/b",
            "/a b",
            "/\u{a0}",
            "/\u{200b}",
            "/..f",
            "/.f.",
            "/a/...",
            "/é",
        ] {
            assert!(is_valid(path), "{path:?}");
        }
    }

    #[test]
    fn refused_paths() {
        for path in [
            "", "a", "a/b", "/a/", "//", "/a//b", "/.", "/a/.", "/..", "/a/../b", "/\u{0}",
            "/\u{1f}", "/\u{7f}",
        ] {
            assert!(!is_valid(path), "{path:?}");
        }
        for path in [
            "/\u{9f}",
            "/\u{e000}",
            "/\u{f8ff}",
            "/\u{fff0}",
            "/\u{fffd}",
            "/\u{10000}",
        ] {
            assert!(!is_valid(path), "{path:?}");
        }
    }

    #[test]
    fn split() {
        assert_eq!(parent("/a/b"), Some("/a"));
        assert_eq!(parent("/a"), Some("/"));
        assert_eq!(parent("/"), None);
        assert_eq!(name("/a/b"), "b");
        assert_eq!(name("/"), "");
    }
}
