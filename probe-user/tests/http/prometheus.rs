//! `/metrics`, as it is, as promtool finds it, and as a Prometheus scrapes it.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use probe::serve::Access;
use serde_json::Value;

use crate::Server;
use crate::sockets::Running;

#[tokio::test]
async fn what_is_known_is_there_and_no_process_is_a_label() {
    let server = Server::new();
    server.get("/api/v1/targets").await.ok();
    server.get("/nothing/4711").await.problem(404);
    let answer = server.get("/metrics").await;
    assert_eq!(answer.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    let text = answer.text();
    for line in [
        "probe_collector_up 1",
        "probe_samples_total 1000",
        "probe_samples_lost_total{reason=\"ring buffer full\"} 3",
        "probe_target_processes{target=\"checkout\"} 2",
        "probe_target_cpu_cores{target=\"checkout\"} 1",
        "probe_target_resident_memory_bytes{target=\"checkout\"} 2000000",
        "probe_function_calls_per_second{function=\"push\",target=\"checkout\"} 10",
        "probe_function_errors_per_second{function=\"push\",target=\"checkout\"} 2.5",
        "probe_function_duration_p99_seconds{function=\"push\",target=\"checkout\"} 0.04",
        "probe_rule_processes{rule=\"hot\",target=\"checkout\",state=\"firing\"} 1",
        "probe_rule_breaches_total{rule=\"hot\",target=\"checkout\"} 7",
        "probe_store_snapshots 5",
        "probe_http_requests_total{method=\"get\",route=\"/api/v1/targets\",code=\"200\"} 1",
        "probe_http_requests_total{method=\"get\",route=\"other\",code=\"404\"} 1",
        "probe_test_total 1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
    }
    assert!(!text.contains("pid=") && !text.contains("send_to_vendor") && !text.contains("4711"), "{text}");
    *server.fake.is_down.lock().unwrap() = true;
    let text = server.get("/metrics").await.text();
    assert!(text.contains("probe_collector_up 0\n") && text.contains("probe_store_snapshots 5\n"), "{text}");
}

/// A program of Prometheus, or why there is none.
fn tool(name: &str) -> Option<Command> {
    let found = Command::new(name).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    match found {
        Ok(_) => Some(Command::new(name)),
        Err(error) => {
            eprintln!("SKIPPED: {name} cannot be run ({error}); apt-get install prometheus brings it");
            None
        }
    }
}

#[test]
fn promtool_finds_nothing_wrong() {
    let Some(mut promtool) = tool("promtool") else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let text = runtime.block_on(async {
        let server = Server::new();
        server.get("/api/v1/targets").await.ok();
        server.get("/metrics").await.text()
    });
    let mut child = promtool.args(["check", "metrics"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Ends with the test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn prometheus_scrapes_it_with_a_token() {
    let Some(mut prometheus) = tool("prometheus") else { return };
    let folder = tempfile::tempdir().unwrap();
    let (tokens, secret) = (folder.path().join("tokens"), folder.path().join("secret"));
    std::fs::write(&tokens, "read 0123456789abcdef\n").unwrap();
    std::fs::write(&secret, "0123456789abcdef\n").unwrap();
    let running = Running::start(Access::new(Some(&tokens), false).unwrap(), None, 8);
    let config = folder.path().join("prometheus.yml");
    let scrape = format!(
        "scrape_configs:\n- job_name: probe\n  scrape_interval: 1s\n  authorization: {{credentials_file: {}}}\n  \
         static_configs: [{{targets: ['{}']}}]\n",
        secret.display(),
        running.address
    );
    std::fs::write(&config, scrape).unwrap();
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let child = prometheus
        .arg(format!("--config.file={}", config.display()))
        .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
        .arg(format!("--web.listen-address=127.0.0.1:{port}"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let _child = Ended(child);
    let url = format!("http://127.0.0.1:{port}/api/v1/query?query=probe_rule_breaches_total");
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        let answer = ureq::get(&url).call().ok().and_then(|mut answer| answer.body_mut().read_to_string().ok());
        let answer: Value = answer.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
        let result = &answer["data"]["result"][0];
        if result["value"][1] == "7" {
            assert_eq!((&result["metric"]["rule"], &result["metric"]["job"]), (&"hot".into(), &"probe".into()));
            return;
        }
        assert!(Instant::now() < end, "nothing was scraped: {answer}");
        std::thread::sleep(Duration::from_millis(300));
    }
}
