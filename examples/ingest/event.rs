//! What a line says: one Jetstream event, as far as the pipeline cares.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;

/// A DID, or the URI of a record. Shared, because rows, indexes and look-ups all hold it.
pub type Id = Arc<str>;

/// The longest line that is parsed, in bytes. Jetstream's own records stay far below it.
pub const MAX_LINE: usize = 1 << 20;

/// A create or a delete in one of the collections that are stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Whose repository changed.
    pub author: Id,
    /// What changed there.
    pub change: Change,
}

/// What an event does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A post appears.
    Post(Post),
    /// Something that refers to a post or a user appears.
    Child(Child),
    /// A post goes, and with it the likes and reposts on it.
    DeletePost(Id),
    /// A child goes.
    DeleteChild(Relation, Id),
}

/// A post, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Post {
    /// `at://{did}/{collection}/{rkey}`.
    pub uri: Id,
    /// The DID that wrote it.
    pub author: Id,
    /// The post it answers.
    pub reply_parent: Option<Id>,
    /// The post that began the thread.
    pub reply_root: Option<Id>,
}

/// A like, repost, follow or block: it is stored once its parent, the subject, is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Child {
    /// What it is.
    pub relation: Relation,
    /// `at://{did}/{collection}/{rkey}`.
    pub uri: Id,
    /// The DID that likes, reposts, follows or blocks.
    pub author: Id,
    /// A post's URI for likes and reposts, a DID for follows and blocks.
    pub subject: Id,
}

/// What a child is to its parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Relation {
    /// `app.bsky.feed.like`, of a post.
    Like,
    /// `app.bsky.feed.repost`, of a post.
    Repost,
    /// `app.bsky.graph.follow`, of a user.
    Follow,
    /// `app.bsky.graph.block`, of a user.
    Block,
}

/// What a child waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Parent {
    /// A post, by its URI.
    Post,
    /// A user, by its DID.
    User,
}

impl Relation {
    /// All four.
    pub const ALL: [Self; 4] = [Self::Like, Self::Repost, Self::Follow, Self::Block];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Like => "like",
            Self::Repost => "repost",
            Self::Follow => "follow",
            Self::Block => "block",
        }
    }

    /// What it refers to.
    pub fn parent(self) -> Parent {
        match self {
            Self::Like | Self::Repost => Parent::Post,
            Self::Follow | Self::Block => Parent::User,
        }
    }
}

/// The collections that are stored, one table each.
#[derive(Clone, Copy)]
enum Collection {
    Posts,
    Children(Relation),
}

impl Collection {
    fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "app.bsky.feed.post" => Self::Posts,
            "app.bsky.feed.like" => Self::Children(Relation::Like),
            "app.bsky.feed.repost" => Self::Children(Relation::Repost),
            "app.bsky.graph.follow" => Self::Children(Relation::Follow),
            "app.bsky.graph.block" => Self::Children(Relation::Block),
            _ => return None,
        })
    }
}

/// Why a line is not an event.
#[derive(Debug)]
pub struct Malformed(String);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Malformed {}

#[derive(Deserialize)]
#[serde(expecting = "a JSON object")]
struct Envelope<'a> {
    #[serde(borrow)]
    did: Cow<'a, str>,
    #[serde(borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    commit: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(expecting = "a JSON object")]
struct Commit<'a> {
    #[serde(borrow)]
    operation: Cow<'a, str>,
    #[serde(borrow)]
    collection: Cow<'a, str>,
    #[serde(borrow)]
    rkey: Cow<'a, str>,
    #[serde(borrow)]
    record: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(expecting = "a JSON object")]
struct PostRecord<'a> {
    #[serde(borrow)]
    reply: Option<Reply<'a>>,
}

#[derive(Deserialize)]
#[serde(expecting = "a JSON object")]
struct Reply<'a> {
    #[serde(borrow)]
    parent: Reference<'a>,
    #[serde(borrow)]
    root: Reference<'a>,
}

#[derive(Deserialize)]
#[serde(expecting = "a JSON object")]
struct Reference<'a> {
    #[serde(borrow)]
    uri: Cow<'a, str>,
}

/// The record of a like or a repost.
#[derive(Deserialize)]
#[serde(expecting = "a JSON object")]
struct OfPost<'a> {
    #[serde(borrow)]
    subject: Reference<'a>,
}

/// The record of a follow or a block.
#[derive(Deserialize)]
#[serde(expecting = "a JSON object")]
struct OfUser<'a> {
    #[serde(borrow)]
    subject: Cow<'a, str>,
}

/// Reads one line. `None` is an event that this pipeline ignores: an update, another collection,
/// an identity or account event, or a kind or operation that is not known.
///
/// # Errors
///
/// [`Malformed`] if the line is not JSON, is longer than [`MAX_LINE`], or lacks what its kind needs.
pub fn parse(line: &[u8]) -> Result<Option<Event>, Malformed> {
    if line.len() > MAX_LINE {
        return Err(Malformed(format!("longer than {MAX_LINE} bytes")));
    }
    let line = std::str::from_utf8(line).map_err(|error| Malformed(error.to_string()))?;
    let Envelope { did, kind, commit } = read("event", line)?;
    let author = filled("did", &did)?;
    if kind != "commit" {
        filled("kind", &kind)?;
        return Ok(None);
    }
    let commit = commit.ok_or_else(|| lacks("commit"))?;
    let Commit { operation, collection: name, rkey, record } = read("commit", commit.get())?;
    filled("operation", &operation)?;
    filled("collection", &name)?;
    filled("rkey", &rkey)?;

    let Some(collection) = Collection::from_name(&name) else { return Ok(None) };
    let uri: Id = format!("at://{did}/{name}/{rkey}").into();
    let change = match (&*operation, collection) {
        ("create", collection) => {
            let record = record.ok_or_else(|| lacks("record"))?.get();
            match collection {
                Collection::Posts => Change::Post(post(uri, author.clone(), record)?),
                Collection::Children(relation) => {
                    Change::Child(child(relation, uri, author.clone(), record)?)
                }
            }
        }
        ("delete", Collection::Posts) => Change::DeletePost(uri),
        ("delete", Collection::Children(relation)) => Change::DeleteChild(relation, uri),
        _ => return Ok(None),
    };
    Ok(Some(Event { author, change }))
}

fn post(uri: Id, author: Id, record: &str) -> Result<Post, Malformed> {
    let PostRecord { reply } = read("record", record)?;
    let (reply_parent, reply_root) = match reply {
        Some(Reply { parent, root }) => (
            Some(filled("reply.parent.uri", &parent.uri)?),
            Some(filled("reply.root.uri", &root.uri)?),
        ),
        None => (None, None),
    };
    Ok(Post { uri, author, reply_parent, reply_root })
}

fn child(relation: Relation, uri: Id, author: Id, record: &str) -> Result<Child, Malformed> {
    let subject = match relation.parent() {
        Parent::Post => filled("subject.uri", &read::<OfPost<'_>>("record", record)?.subject.uri)?,
        Parent::User => filled("subject", &read::<OfUser<'_>>("record", record)?.subject)?,
    };
    Ok(Child { relation, uri, author, subject })
}

fn read<'a, T: Deserialize<'a>>(what: &str, json: &'a str) -> Result<T, Malformed> {
    serde_json::from_str(json).map_err(|error| Malformed(format!("{what}: {error}")))
}

fn filled(field: &str, value: &str) -> Result<Id, Malformed> {
    if value.is_empty() { Err(lacks(field)) } else { Ok(value.into()) }
}

fn lacks(field: &str) -> Malformed {
    Malformed(format!("`{field}` is missing or empty"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commit(rest: &str) -> String {
        format!(r#"{{"did":"did:plc:a","kind":"commit","commit":{{{rest}}}}}"#)
    }

    fn change(rest: &str) -> Change {
        parse(commit(rest).as_bytes()).unwrap().unwrap().change
    }

    #[test]
    fn each_collection_is_read() {
        let create = r#""operation":"create","rkey":"1","#;
        let Change::Post(post) = change(&format!(
            r#"{create}"collection":"app.bsky.feed.post","record":{{"reply":{{"parent":{{"uri":"at://p"}},"root":{{"uri":"at://r"}}}}}}"#
        )) else {
            panic!("not a post")
        };
        assert_eq!(&*post.uri, "at://did:plc:a/app.bsky.feed.post/1");
        assert_eq!(
            (post.reply_parent.as_deref(), post.reply_root.as_deref()),
            (Some("at://p"), Some("at://r"))
        );

        for (name, record, subject) in [
            ("feed.like", r#"{"subject":{"uri":"at://p"}}"#, "at://p"),
            ("feed.repost", r#"{"subject":{"uri":"at://p"}}"#, "at://p"),
            ("graph.follow", r#"{"subject":"did:plc:b"}"#, "did:plc:b"),
            ("graph.block", r#"{"subject":"did:plc:b"}"#, "did:plc:b"),
        ] {
            let Change::Child(child) =
                change(&format!(r#"{create}"collection":"app.bsky.{name}","record":{record}"#))
            else {
                panic!("not a child")
            };
            assert_eq!(&*child.uri, format!("at://did:plc:a/app.bsky.{name}/1"));
            assert_eq!((&*child.author, &*child.subject), ("did:plc:a", subject));
        }
        assert_eq!(
            change(r#""operation":"delete","collection":"app.bsky.feed.like","rkey":"1""#),
            Change::DeleteChild(Relation::Like, "at://did:plc:a/app.bsky.feed.like/1".into())
        );
    }

    #[test]
    fn what_is_not_stored_is_ignored() {
        for line in [
            r#"{"did":"did:plc:a","kind":"identity","identity":{}}"#.to_owned(),
            r#"{"did":"did:plc:a","kind":"account"}"#.to_owned(),
            commit(
                r#""operation":"update","collection":"app.bsky.feed.post","rkey":"1","record":{}"#,
            ),
            commit(
                r#""operation":"create","collection":"app.bsky.graph.listitem","rkey":"1","record":{"subject":1}"#,
            ),
            commit(r#""operation":"delete","collection":"app.bsky.graph.listitem","rkey":"1""#),
        ] {
            assert_eq!(parse(line.as_bytes()).unwrap(), None, "{line}");
        }
    }

    #[test]
    fn what_lacks_something_is_malformed() {
        let like = r#""operation":"create","collection":"app.bsky.feed.like","rkey":"1""#;
        for line in [
            "not json".to_owned(),
            "[]".to_owned(),
            "{}".to_owned(),
            r#"{"did":"did:plc:a"}"#.to_owned(),
            r#"{"kind":"identity"}"#.to_owned(),
            r#"{"did":"","kind":"identity"}"#.to_owned(),
            r#"{"did":"did:plc:a","kind":"commit"}"#.to_owned(),
            commit(r#""operation":"create","collection":"app.bsky.feed.post","record":{}"#),
            commit(r#""operation":"delete","collection":"app.bsky.feed.post","rkey":"""#),
            commit(r#""operation":"create","collection":"app.bsky.feed.post","rkey":"1""#),
            commit(
                r#""operation":"create","collection":"app.bsky.feed.post","rkey":"1","record":{"reply":{}}"#,
            ),
            commit(like),
            commit(&format!(r#"{like},"record":null"#)),
            commit(&format!(r#"{like},"record":{{}}"#)),
            commit(&format!(r#"{like},"record":{{"subject":"at://p"}}"#)),
            commit(&format!(r#"{like},"record":{{"subject":{{"uri":""}}}}"#)),
            commit(
                r#""operation":"create","collection":"app.bsky.graph.follow","rkey":"1","record":{"subject":{"uri":"x"}}"#,
            ),
            r#"{"did":"did:plc:a","kind":"identity"} trailing"#.to_owned(),
        ] {
            parse(line.as_bytes()).expect_err(&line);
        }
        parse(b"{\"did\":\"\xff\",\"kind\":\"identity\"}").expect_err("not UTF-8");
        let long = format!(r#"{{"did":"{}","kind":"identity"}}"#, "x".repeat(MAX_LINE));
        parse(long.as_bytes()).expect_err("too long");
    }
}
