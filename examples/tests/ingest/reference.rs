//! The rules of ingest, one line after the other and nothing bounded: obviously right, and written
//! without any part of the program.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::tables::Tables;

const OF_POSTS: [&str; 2] = ["likes", "reposts"];
const OF_USERS: [&str; 2] = ["follows", "blocks"];

/// What is there and what waits, after some lines.
#[derive(Debug, Default)]
pub(crate) struct Reference {
    pub(crate) tables: Tables,
    /// By URI: the table it would go to, and its row.
    waiting: BTreeMap<String, (&'static str, [String; 2])>,
    counts: BTreeMap<&'static str, u64>,
}

impl Reference {
    pub(crate) fn of<'a>(lines: impl IntoIterator<Item = &'a str>) -> Self {
        let mut reference = Self::default();
        for line in lines.into_iter().filter(|line| !line.trim().is_empty()) {
            *reference.counts.entry("read").or_default() += 1;
            for ended in reference.line(line) {
                *reference.counts.entry(ended).or_default() += 1;
            }
        }
        reference
    }

    pub(crate) fn count(&self, category: &str) -> u64 {
        match category {
            "waiting" => self.waiting.len() as u64,
            _ => self.counts.get(category).copied().unwrap_or(0),
        }
    }

    /// Returns how lines ended because of this one, itself included unless it waits.
    fn line(&mut self, line: &str) -> Vec<&'static str> {
        let Ok(event) = serde_json::from_str::<Value>(line) else { return vec!["malformed"] };
        let (Some(did), Some(kind)) = (event["did"].as_str(), event["kind"].as_str()) else {
            return vec!["malformed"];
        };
        if kind != "commit" {
            return vec!["ignored"];
        }
        let commit = &event["commit"];
        let (Some(operation), Some(collection), Some(rkey)) =
            (commit["operation"].as_str(), commit["collection"].as_str(), commit["rkey"].as_str())
        else {
            return vec!["malformed"];
        };
        let table = match collection {
            "app.bsky.feed.post" => "posts",
            "app.bsky.feed.like" => "likes",
            "app.bsky.feed.repost" => "reposts",
            "app.bsky.graph.follow" => "follows",
            "app.bsky.graph.block" => "blocks",
            _ => return vec!["ignored"],
        };
        let uri = format!("at://{did}/{collection}/{rkey}");
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let record = &commit["record"];
        match (operation, table) {
            ("create", "posts") => {
                let reply = &record["reply"];
                let (parent, root) = (text(&reply["parent"]["uri"]), text(&reply["root"]["uri"]));
                if !record.is_object() || (!reply.is_null() && (parent.is_none() || root.is_none()))
                {
                    return vec!["malformed"];
                }
                let mut ended = self.user(did);
                if self.tables.posts.contains_key(&uri) {
                    ended.push("duplicate");
                } else {
                    self.tables.posts.insert(uri.clone(), (did.to_owned(), parent, root));
                    ended.push("stored");
                    ended.extend(self.come(OF_POSTS, &uri));
                }
                ended
            }
            ("create", _) => {
                let of_post = OF_POSTS.contains(&table);
                let subject = if of_post { &record["subject"]["uri"] } else { &record["subject"] };
                let Some(subject) = text(subject) else { return vec!["malformed"] };
                let mut ended = self.user(did);
                let here = if of_post {
                    self.tables.posts.contains_key(&subject)
                } else {
                    self.tables.users.contains(&subject)
                };
                let row = [did.to_owned(), subject];
                if self.waiting.contains_key(&uri) || self.tables.children[table].contains_key(&uri)
                {
                    ended.push("duplicate");
                } else if here {
                    self.tables.children.get_mut(table).unwrap().insert(uri, row);
                    ended.push("stored");
                } else {
                    self.waiting.insert(uri, (table, row));
                }
                ended
            }
            ("delete", "posts") => {
                let mut ended = self.user(did);
                let mut found = self.tables.posts.remove(&uri).is_some();
                for table in OF_POSTS {
                    let rows = self.tables.children.get_mut(table).unwrap();
                    let before = rows.len();
                    rows.retain(|_, [_, subject]| *subject != uri);
                    found |= rows.len() < before;
                }
                let before = self.waiting.len();
                self.waiting.retain(|_, (table, row)| !(OF_POSTS.contains(table) && row[1] == uri));
                let cancelled = before - self.waiting.len();
                ended.extend(vec!["cancelled"; cancelled]);
                found |= cancelled > 0;
                ended.push(if found { "deleted" } else { "delete_unknown" });
                ended
            }
            ("delete", _) => {
                let mut ended = self.user(did);
                if self.waiting.remove(&uri).is_some() {
                    ended.extend(["cancelled", "deleted"]);
                } else if self.tables.children.get_mut(table).unwrap().remove(&uri).is_some() {
                    ended.push("deleted");
                } else {
                    ended.push("delete_unknown");
                }
                ended
            }
            _ => vec!["ignored"],
        }
    }

    fn user(&mut self, did: &str) -> Vec<&'static str> {
        if self.tables.users.insert(did.to_owned()) { self.come(OF_USERS, did) } else { vec![] }
    }

    /// Those who waited for this post or user are stored.
    fn come(&mut self, tables: [&str; 2], subject: &str) -> Vec<&'static str> {
        let come: BTreeSet<String> = self
            .waiting
            .iter()
            .filter(|(_, (table, row))| tables.contains(table) && row[1] == subject)
            .map(|(uri, _)| uri.clone())
            .collect();
        for uri in &come {
            let (table, row) = self.waiting.remove(uri).unwrap();
            self.tables.children.get_mut(table).unwrap().insert(uri.clone(), row);
        }
        vec!["stored"; come.len()]
    }
}
