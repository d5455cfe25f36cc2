//! Which web pages may connect. A browser lets any page open a WebSocket to any server, and says in
//! `Origin` which page it is; the server has to check it (RFC 6455, section 10.2).

use std::net::IpAddr;

use axum::http::header::{HOST, ORIGIN};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName};

/// Whether a request may join: it does not come from a web page, or from the server's own, or from one
/// of `others`. A server on a loopback address has its own page at a loopback name alone, so that no
/// other name can be pointed at it.
pub fn is_allowed(headers: &HeaderMap, others: &[String], on_loopback: bool) -> bool {
    if !headers.contains_key(ORIGIN) {
        return true;
    }
    let Some(origin) = text(headers, ORIGIN) else { return false };
    if others.iter().any(|other| other.eq_ignore_ascii_case(origin)) {
        return true;
    }
    let page = origin.split_once("://").map(|(_, authority)| authority);
    let (Some(page), Some(host)) = (page, text(headers, HOST)) else { return false };
    page.eq_ignore_ascii_case(host) && (!on_loopback || is_loopback(host))
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

fn is_loopback(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let name = authority.host().trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(origin: &str, host: &str, on_loopback: bool) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(ORIGIN, origin.parse().unwrap());
        headers.insert(HOST, host.parse().unwrap());
        is_allowed(&headers, &["https://chat.example".to_owned()], on_loopback)
    }

    #[test]
    fn pages_of_the_server_and_those_that_are_named_may_connect() {
        assert!(is_allowed(&HeaderMap::new(), &[], true));
        for host in ["localhost:8080", "127.0.0.1:8080", "[::1]:8080"] {
            assert!(allowed(&format!("http://{host}"), host, true), "{host}");
        }
        assert!(allowed("https://chat.example", "127.0.0.1:8080", true));
        assert!(allowed("http://chat.local:8080", "chat.local:8080", false));
    }

    #[test]
    fn other_pages_may_not() {
        for origin in ["http://evil.example", "null", "http://localhost:3000", ""] {
            assert!(!allowed(origin, "localhost:8080", true), "{origin}");
            assert!(!allowed(origin, "localhost:8080", false), "{origin}");
        }
        // A name of theirs that leads here.
        assert!(!allowed("http://evil.example:8080", "evil.example:8080", true));
    }
}
