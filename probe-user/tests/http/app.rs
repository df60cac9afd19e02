//! The application next to the API: its pages and files, how they may be kept, and what they may do.

use probe::serve::{Access, Limits};

use crate::{Answer, Server};

/// The files that the page names.
fn files(page: &Answer) -> Vec<String> {
    let text = page.text();
    let parts = text.split('"').filter(|part| part.starts_with("/assets/"));
    parts.map(str::to_owned).collect()
}

#[tokio::test]
async fn every_page_is_the_application_and_its_files_never_change() {
    let server = Server::new();
    let page = server.get("/").await;
    for path in
        ["/snapshots", "/snapshots/01HF7YBW5R0000000000000007", "/targets/a%20b", "/alerts", "/rules", "/health"]
    {
        let answer = server.get(path).await;
        assert_eq!(answer.status, 200, "{path}");
        assert_eq!(answer.header("content-type"), "text/html; charset=utf-8");
        assert_eq!(answer.header("cache-control"), "no-cache");
        assert_eq!(answer.text(), page.text(), "{path}");
    }
    let tag = page.header("etag");
    let again = server.send("GET", "/snapshots", &[("if-none-match", tag)], "").await;
    assert_eq!((again.status.as_u16(), again.body.len()), (304, 0));

    let files = files(&page);
    assert!(
        files.iter().any(|file| file.ends_with(".js")) && files.iter().any(|file| file.ends_with(".css")),
        "{files:?}"
    );
    for file in files {
        let plain = server.get(&file).await;
        assert_eq!(plain.status, 200, "{file}");
        assert!(plain.header("cache-control").contains("immutable"), "{file}");
        for (coding, fewer) in [("gzip", "gzip"), ("br", "gzip, br")] {
            let answer = server.send("GET", &file, &[("accept-encoding", fewer)], "").await;
            assert_eq!(answer.header("content-encoding"), coding);
            assert_eq!(answer.header("vary"), "accept-encoding");
            assert_eq!(answer.header("etag"), plain.header("etag"));
            assert!(plain.body.len() < 1000 || answer.body.len() < plain.body.len(), "{file} by {coding}");
        }
        let again = server.send("GET", &file, &[("if-none-match", plain.header("etag"))], "").await;
        assert_eq!(again.status, 304);
    }
}

#[tokio::test]
async fn pages_run_and_load_nothing_but_what_this_server_has() {
    let server = Server::new();
    let page = server.get("/").await;
    let policy = page.header("content-security-policy");
    for part in
        ["default-src 'none'", "script-src 'self'", "style-src 'self'", "connect-src 'self'", "frame-ancestors 'none'"]
    {
        assert!(policy.split("; ").any(|one| one == part), "{part} in {policy}");
    }
    assert!(!policy.contains("unsafe"));
    let text = page.text();
    for forbidden in ["<style", "style=", "http:", "https:", "onload", "<script>"] {
        assert!(!text.contains(forbidden), "{forbidden}");
    }
    assert!(!page.header("permissions-policy").is_empty());
    // The worker of the profile is loaded by itself, and has the policy of its own answer.
    for file in files(&page) {
        assert_eq!(server.get(&file).await.header("content-security-policy"), policy, "{file}");
    }
}

#[tokio::test]
async fn pages_load_without_a_token_and_what_they_ask_for_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let tokens = folder.path().join("tokens");
    std::fs::write(&tokens, "read secret-of-sixteen-letters\n").unwrap();
    let server = Server::with(Access::new(Some(&tokens), false).unwrap(), Limits::default());
    let page = server.get("/snapshots").await;
    assert_eq!(page.status, 200);
    for file in files(&page) {
        assert_eq!(server.get(&file).await.status, 200, "{file}");
    }
    server.get("/api/v1/snapshots").await.problem(401);
    for method in ["POST", "PUT", "DELETE"] {
        assert_ne!(server.send(method, "/snapshots", &[], "").await.status, 200, "{method}");
    }
}
