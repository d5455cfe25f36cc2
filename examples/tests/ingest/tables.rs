//! All that the database holds.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use rusqlite::Connection;

/// By URI: author, `reply_parent`, `reply_root`.
pub(crate) type Posts = BTreeMap<String, (String, Option<String>, Option<String>)>;
/// By URI: author, subject.
pub(crate) type Children = BTreeMap<String, [String; 2]>;

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Tables {
    pub(crate) users: BTreeSet<String>,
    pub(crate) posts: Posts,
    pub(crate) children: BTreeMap<&'static str, Children>,
}

impl Default for Tables {
    fn default() -> Self {
        let children =
            ["likes", "reposts", "follows", "blocks"].map(|name| (name, BTreeMap::new()));
        Self { users: BTreeSet::new(), posts: BTreeMap::new(), children: children.into() }
    }
}

impl Tables {
    pub(crate) fn read(path: &Path) -> Self {
        let connection = Connection::open(path).unwrap();
        let mut tables = Self::default();
        let mut users = connection.prepare("SELECT did FROM users").unwrap();
        tables.users = users.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
        let mut posts =
            connection.prepare("SELECT uri, author, reply_parent, reply_root FROM posts").unwrap();
        tables.posts = posts
            .query_map([], |row| Ok((row.get(0)?, (row.get(1)?, row.get(2)?, row.get(3)?))))
            .unwrap()
            .map(Result::unwrap)
            .collect();
        for (table, rows) in &mut tables.children {
            let sql = format!("SELECT uri, author, subject FROM {table}");
            let mut children = connection.prepare(&sql).unwrap();
            *rows = children
                .query_map([], |row| Ok((row.get(0)?, [row.get(1)?, row.get(2)?])))
                .unwrap()
                .map(Result::unwrap)
                .collect();
        }
        tables
    }
}
