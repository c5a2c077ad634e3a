//! The report says what the other verbs say, and is a page that any browser shows whole, alone and in every light.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::services::chromium::Chromium;
use crate::services::home::Site;
use cdrvault::generator::{Generator, Settings, sqlite};
use jiff::civil::Date;
use jiff::{Timestamp, ToSpan as _};
use serde_json::Value;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Row as _, SqliteConnection};

/// A path and a message that a careless page would take for its own markup.
const ODD_PLACE: &str = r#"co<script>alert("py")</script>&'amp'"#;
const ODD_SOURCE: &str = r#"<img src=x onerror="alert(1)">"#;

/// Days around today, of which the constants below name those that something happens to.
struct Days {
    first: Date,
}

impl Days {
    fn new() -> Self {
        let rome = jiff::tz::TimeZone::get("Europe/Rome").unwrap();
        let today = Timestamp::now().to_zoned(rome).date();
        Self { first: today.checked_sub(40.days()).unwrap() }
    }

    fn at(&self, number: i32) -> Date {
        self.first.checked_add(number.days()).unwrap()
    }
}

const RATED_AGAIN: i32 = 2;
const GONE: i32 = 4;
const HOLE: i32 = 6;
const SHRUNK: i32 = 9;
const LAGS: i32 = 12;
/// Today, which is open.
const LAST: i32 = 40;

async fn delete(connection: &mut SqliteConnection, day: Date, more: &str) {
    let sql = format!("DELETE FROM ar_cdr WHERE date(calldate) = '{day}' {more}");
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await.unwrap();
}

/// A pipeline with everything that can happen to a day, two vaults of which one lags, and a source that fails.
fn eventful() -> (Site, Days) {
    let site = Site::new("sqlite:billing.sqlite");
    let days = Days::new();
    let text = Site::text("sqlite:billing.sqlite")
        .replace("path = \"vault\"\n", "path = \"vault\"\nkeep = { last = 1 }\n")
        .replace("sinks = [\"vault\"]", "sinks = [\"vault\", \"copy\"]");
    let lagging =
        text.replace("[flow.ar_cdr]", &format!("[sink.copy.local]\npath = '''{ODD_PLACE}'''\n\n[flow.ar_cdr]"));
    site.pipeline(&lagging);
    std::fs::create_dir(site.path(ODD_PLACE).parent().unwrap()).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let generator = Generator::new(Settings { seed: 5, calls_per_day: 60, start: days.first, ..Settings::default() });
    let mut billing = runtime.block_on(async {
        let mut billing = sqlite::create(&site.path("billing.sqlite")).await.unwrap();
        for number in (0..=LAST).filter(|number| *number != HOLE) {
            let calls = 20 + 7 * u64::try_from(number % 11).unwrap();
            sqlite::load(&mut billing, generator.exactly(days.at(number), calls)).await.unwrap();
        }
        billing
    });
    site.ok("run", &[]);
    let rate_again = |billing: &mut SqliteConnection, number: i32| {
        let day = days.at(number);
        let again = generator.rerate(&generator.day(day), 1);
        runtime.block_on(sqlite::rerate_day(billing, day, again.cdrs)).unwrap();
    };
    for _ in 0..2 {
        rate_again(&mut billing, RATED_AGAIN);
        site.ok("run", &[]);
        runtime.block_on(async {
            let statement =
                format!("UPDATE ar_cdr SET cost = cost + 1 WHERE date(calldate) = '{}'", days.at(RATED_AGAIN));
            sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut billing).await.unwrap();
            sqlite::announce(&mut billing, days.at(RATED_AGAIN)).await.unwrap();
        });
        site.ok("run", &[]);
    }
    runtime.block_on(async {
        delete(&mut billing, days.at(GONE), "").await;
        delete(&mut billing, days.at(SHRUNK), "AND id % 5 > 0").await;
        sqlite::announce(&mut billing, days.at(SHRUNK)).await.unwrap();
    });
    site.ok("run", &[]);
    site.ok("verify", &[]);
    // The second vault is left out of a run.
    let alone = text.replace(", \"copy\"]", "]");
    let odd = format!(
        "\n[flow.odd]\nsource.files = {{ path = '''{ODD_SOURCE}''' }}\ntransforms = [\"incremental\"]\nsinks = [\"vault\"]\n"
    );
    std::fs::create_dir(site.path("etc")).unwrap();
    std::fs::write(site.path("etc/asterisk.conf"), "a file").unwrap();
    let etc = "\n[flow.etc]\nsource.files = { path = \"etc\" }\ntransforms = [\"incremental\"]\nsinks = [\"vault\"]\n";
    site.pipeline(&format!("{alone}{odd}{etc}"));
    rate_again(&mut billing, LAGS);
    let said = site.run("run", &[]);
    assert_eq!(said.status, 3, "{}", said.err);
    site.pipeline(&format!("{lagging}{odd}{etc}"));
    (site, days)
}

fn json(site: &Site, verb: &str, more: &[&str]) -> Value {
    let said = site.ok(verb, &[&["--json"], more].concat());
    serde_json::from_str(&said.out).unwrap()
}

fn page(site: &Site) -> PathBuf {
    let file = site.path("report.html");
    site.ok("report", &["--output", file.to_str().unwrap()]);
    file
}

/// What is free on a disk changes at any time.
fn without_free(mut value: Value) -> Value {
    for sink in value["sinks"].as_array_mut().unwrap() {
        assert!(sink["free"].as_u64().unwrap() > 0);
        sink["free"].take();
    }
    value
}

fn list<'a>(value: &'a Value, name: &str) -> &'a Vec<Value> {
    value[name].as_array().unwrap_or_else(|| panic!("no {name}: {value}"))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}"))
}

/// Reads the page as those see it who read it. A number has its exact value beside its text; here they are compared.
const READ: &str = r"
const all = (of, what) => [...of.querySelectorAll(what)];
const number = (of, what) => Number(of.querySelector(what + ' data').value);
const time = (of, what) => of.querySelector(what + ' time')?.dateTime ?? null;
const words = of => of.innerText.trim();
// Of two that are equally near, such as for 17.25, either will do.
const isSize = (shown, bytes) => {
  let unit = 0, value = bytes;
  while (value >= 1024 && unit < 4) { value /= 1024; unit++; }
  const name = ['B', 'KiB', 'MiB', 'GiB', 'TiB'][unit];
  return unit == 0 ? shown == `${bytes} B` : shown.endsWith(` ${name}`) && /^[0-9]+[.][0-9] /.test(shown)
    && Math.abs(parseFloat(shown) - value) < 0.0500001;
};
document.querySelectorAll('details').forEach(one => one.open = true);
const odd = all(document, 'data').filter(one => {
  const shown = one.textContent, exact = Number(one.value);
  return !(shown == 'nothing' && exact == 0 || shown == exact.toLocaleString('en') || isSize(shown, exact)
    || shown == 'g' + String(exact).padStart(4, '0') || shown == exact.toFixed(1) + ' s');
}).map(one => one.outerHTML);
return {
  odd,
  verdict: words(document.querySelector('#verdict')),
  lastSuccess: time(document, '#last-success'), lastRun: time(document, '#last-run'),
  partitions: number(document, '#partitions'), behind: number(document, '#behind'),
  datasets: all(document, '.datasets tbody tr').map(tr => ({
    dataset: tr.dataset.flow, sink: tr.dataset.sink, partitions: number(tr, '.partitions'), versions: number(tr, '.versions'),
    oldest: words(all(tr, '.day')[0]), newest: words(all(tr, '.day')[1]), received: time(tr, '.received'),
    behind: number(tr, '.behind'), since: words(tr.querySelector('.behind')),
  })),
  flows: all(document, '.flow').map(flow => ({
    dataset: flow.dataset.flow,
    rows: flow.querySelector('.sum .rows') && number(flow, '.sum .rows'),
    bytes: flow.querySelector('.sum .bytes') && number(flow, '.sum .bytes'),
    cells: all(flow, '.calendar [data-day]').map(td => ({day: td.dataset.day, class: td.className, sign: words(td), title: td.title})),
    units: all(flow, '.days tbody tr').filter(tr => tr.querySelector('.rows')).map(tr => ({
      partition: tr.dataset.partition, state: words(tr.querySelector('.state')), rows: number(tr, '.rows'), bytes: number(tr, '.bytes'),
      generation: number(tr, '.generation'), versions: number(tr, '.versions'),
    })),
    months: all(flow, '.months tbody tr').map(tr => ({
      month: tr.dataset.month, days: number(tr, '.count'), rows: number(tr, '.rows'), bytes: number(tr, '.bytes'),
      plain: number(tr, '.plain'), smaller: words(tr.querySelector('.smaller')), each: words(tr.querySelector('.each')),
    })),
    bars: all(flow, 'svg .bar').map(bar => bar.textContent),
  })),
  prune: all(document, '.prune').map(sink => ({
    sink: sink.dataset.sink, words: words(sink), going: sink.querySelector('.going') && number(sink, '.going'),
    staying: sink.querySelector('.staying') && number(sink, '.staying'),
    versions: all(sink, 'tbody tr').map(tr => `${tr.dataset.unit} ${tr.querySelector('data').value}`),
  })),
  runs: all(document, '.runs tbody tr').map(tr => ({began: tr.dataset.began, outcome: words(tr.querySelector('.outcome')), words: words(tr)})),
  sinks: all(document, 'table.sinks tbody tr').map(tr => ({name: tr.dataset.sink, words: words(tr)})),
  foreign: all(document, 'script, img, iframe, object, [onerror], [onclick], link:not([rel=icon])').length,
  text: document.body.innerText,
};";

#[test]
fn every_number_of_the_page_is_that_of_the_other_verbs() {
    let (site, days) = eventful();
    let status = without_free(json(&site, "status", &[]));
    let facts = without_free(json(&site, "report", &[]));
    for (name, value) in status.as_object().unwrap() {
        assert_eq!(&facts[name], value, "{name}");
    }
    let browser = Chromium::start();
    browser.look(1200, "screen", "light");
    browser.open(&page(&site));
    let page = browser.script(READ);
    assert_eq!(page["odd"], serde_json::json!([]), "a number that is not what it says");
    assert_eq!(page["foreign"], 0);
    assert!(text(&page["text"]).contains(ODD_PLACE), "{}", page["text"]);
    assert!(text(&page["text"]).contains(ODD_SOURCE), "{}", page["text"]);
    assert_eq!(page["lastSuccess"], status["last-success"]);
    assert_eq!(page["lastRun"], status["last-run"]["began"]);
    assert!(text(&page["verdict"]).ends_with("Something is wrong."), "{}", page["verdict"]);

    let datasets = list(&status, "datasets");
    assert_eq!(list(&page, "datasets").len(), datasets.len());
    for (shown, told) in list(&page, "datasets").iter().zip(datasets) {
        for name in ["dataset", "sink", "partitions", "versions", "behind", "received"] {
            assert_eq!(shown[name], told[name], "{name} of {told}");
        }
        for name in ["oldest", "newest"] {
            assert_eq!(text(&shown[name]), told[name].as_str().unwrap_or(""), "{name} of {told}");
        }
    }
    let behind: u64 = datasets.iter().map(|dataset| dataset["behind"].as_u64().unwrap()).sum();
    assert_eq!((&page["behind"], behind), (&behind.into(), 1), "the copy lacks one day");

    let snapshots = json(&site, "snapshots", &[]);
    // What a sink has that lags is listed too.
    let snapshots: Vec<&Value> = list(&snapshots, "snapshots").iter().filter(|one| one["live"] == true).collect();
    assert_eq!(page["partitions"], snapshots.len());
    for flow in list(&page, "flows") {
        let of_flow: Vec<&Value> = snapshots.iter().copied().filter(|one| one["dataset"] == flow["dataset"]).collect();
        let sum = |name: &str| of_flow.iter().map(|one| one[name].as_u64().unwrap()).sum::<u64>();
        if !of_flow.is_empty() {
            assert_eq!((flow["rows"].as_u64(), flow["bytes"].as_u64()), (Some(sum("rows")), Some(sum("bytes"))));
        }
        let units = list(flow, "units");
        assert_eq!(units.len(), of_flow.len());
        let mut months: BTreeMap<&str, (u64, u64, u64)> = BTreeMap::new();
        for told in &of_flow {
            let shown = units.iter().find(|unit| unit["partition"] == told["partition"]).unwrap();
            for name in ["rows", "bytes", "generation"] {
                assert_eq!(shown[name], told[name], "{name} of {told}");
            }
            assert_eq!(text(&shown["state"]).contains("open"), told["open"] == true, "{shown}");
            assert_eq!(text(&shown["state"]).contains("not delivered"), !list(told, "behind").is_empty(), "{shown}");
            if let Some((month, _)) = text(&told["partition"]).rsplit_once('-') {
                let month = months.entry(month).or_default();
                let more = (1, told["rows"].as_u64().unwrap(), told["bytes"].as_u64().unwrap());
                *month = (month.0 + more.0, month.1 + more.1, month.2 + more.2);
                let cell = list(flow, "cells").iter().find(|cell| cell["day"] == told["partition"]).unwrap();
                let title = text(&cell["title"]);
                for part in [format!("; {} rows; ", more.1), format!("; generation {}; in ", told["generation"])] {
                    assert!(title.contains(&part), "no `{part}` in {title}");
                }
            }
        }
        let shown = list(flow, "months");
        assert_eq!(shown.len(), months.len());
        for month in shown {
            let (count, rows, bytes) = months[text(&month["month"])];
            assert_eq!((&month["days"], &month["rows"], &month["bytes"]), (&count.into(), &rows.into(), &bytes.into()));
            let plain = month["plain"].as_u64().unwrap();
            assert_eq!(text(&month["smaller"]), format!("{:.1} ×", plain as f64 / bytes as f64));
            assert_eq!(text(&month["each"]), format!("{:.1} B", bytes as f64 / rows as f64));
            let each = format!("{}: {:.1} B", text(&month["month"]), bytes as f64 / rows as f64);
            assert!(list(flow, "bars").iter().any(|bar| bar == each.as_str()), "{flow}");
        }
    }

    let cells = list(&list(&page, "flows")[0], "cells");
    let sign = |number: i32| {
        let day = days.at(number).to_string();
        let cell = cells.iter().find(|cell| cell["day"] == day.as_str()).unwrap_or_else(|| panic!("no {day}"));
        (text(&cell["sign"]), text(&cell["class"]).split(' ').next_back().unwrap())
    };
    let looks = [0, RATED_AGAIN, GONE, HOLE, SHRUNK, LAGS, LAST].map(sign);
    let expected = [
        ("", "saved"),
        ("Δ", "changed"),
        ("–", "gone"),
        ("×", "missing"),
        ("↓", "shrunk"),
        ("!", "undelivered"),
        ("○", "open"),
    ];
    assert_eq!(looks, expected);

    let plan = json(&site, "prune", &["-n"]);
    for told in list(&plan["plan"], "sinks") {
        let shown = list(&page, "prune").iter().find(|shown| shown["sink"] == told["sink"]).unwrap();
        // The page tells of sinks without `keep` that they have none.
        if shown["going"].is_null() {
            continue;
        }
        let versions = list(told, "versions");
        let going = versions.iter().filter(|version| version["remove"] == true).count();
        assert_eq!((&shown["going"], &shown["staying"]), (&going.into(), &(versions.len() - going).into()));
        assert_eq!(list(shown, "versions").len(), versions.len());
        for version in versions {
            let unit =
                format!("{} {} {}", text(&version["dataset"]), text(&version["partition"]), version["generation"]);
            assert!(list(shown, "versions").iter().any(|shown| *shown == unit), "no {unit}");
            assert!(text(&shown["words"]).contains(text(&version["reason"])), "{version}");
        }
    }
    let runs = json(&site, "history", &["--last", "30"]);
    let (told, shown) = (list(&runs, "runs"), list(&page, "runs"));
    assert_eq!(shown.len(), told.len());
    for (shown, told) in shown.iter().zip(told.iter().rev()) {
        assert_eq!((&shown["began"], &shown["outcome"]), (&told["started"], &told["outcome"]));
    }
    for sink in list(&page, "sinks") {
        assert!(text(&sink["words"]).contains("all good"), "the last verification is shown: {sink}");
    }
    plain_is_what_the_database_has(&site, &facts, days.at(0));
}

/// The lengths of all texts, and the width of each other column for each row, as SQLite counts them.
fn plain_is_what_the_database_has(site: &Site, facts: &Value, day: Date) {
    let counted = tokio::runtime::Runtime::new().unwrap().block_on(async {
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(site.path("billing.sqlite"));
        let mut billing = options.connect().await.unwrap();
        let columns = sqlx::query("SELECT name, type FROM pragma_table_info('ar_cdr')").fetch_all(&mut billing).await;
        let terms = columns.unwrap().into_iter().map(|column| {
            let (name, kind): (String, String) = (column.get(0), column.get(1));
            match kind.split('(').next().unwrap() {
                "TINYINT" => "1".to_owned(),
                "SMALLINT" => "2".to_owned(),
                "INT" => "4".to_owned(),
                "BIGINT" | "DATETIME" => "8".to_owned(),
                _ => format!("coalesce(length(CAST({name} AS BLOB)), 0)"),
            }
        });
        let terms: Vec<String> = terms.collect();
        let sql = format!("SELECT sum({}) FROM ar_cdr WHERE date(calldate) = '{day}'", terms.join(" + "));
        sqlx::query(AssertSqlSafe(sql)).fetch_one(&mut billing).await.unwrap().get::<i64, _>(0)
    });
    let units = list(&list(facts, "flows")[0], "units");
    let unit = units.iter().find(|unit| unit["partition"] == day.to_string().as_str()).unwrap();
    assert_eq!(unit["plain"], counted);
}

#[test]
fn a_browser_shows_it_whole_without_a_word_and_without_the_network() {
    let (site, _) = eventful();
    let page = page(&site);
    // For a person to look at; the directory is cargo's.
    let pictures = Path::new(env!("CARGO_TARGET_TMPDIR")).join("report");
    std::fs::create_dir_all(&pictures).unwrap();
    std::fs::copy(&page, pictures.join("report.html")).unwrap();
    let browser = Chromium::start();
    browser.logs();
    for (name, width, media, scheme) in [
        ("light", 1200, "screen", "light"),
        ("dark", 1200, "screen", "dark"),
        ("phone", 360, "screen", "light"),
        ("phone-dark", 360, "screen", "dark"),
        ("small-phone", 320, "screen", "light"),
        ("paper", 800, "print", "dark"),
    ] {
        browser.look(width, media, scheme);
        browser.open(&page);
        browser.picture(&pictures.join(format!("{name}.png")));
        if media == "print" {
            browser.print(&pictures.join("paper.pdf"));
        }
        browser.script("document.querySelectorAll('details').forEach(one => one.open = true)");
        let seen = browser.script(LOOK);
        assert_eq!(seen["width"], width, "{name}: it can be scrolled sideways: {}", seen["wide"]);
        assert_eq!(seen["wide"], serde_json::json!([]), "{name}: something is cut off");
        assert_eq!(seen["faint"], serde_json::json!([]), "{name}: text without contrast");
        let dark = scheme == "dark" && media == "screen";
        assert_eq!(seen["background"], if dark { "rgb(17, 24, 28)" } else { "rgb(255, 255, 255)" }, "{name}");
        for (what, wrong) in [("lang", "en"), ("headings", ""), ("headers", ""), ("twice", "")] {
            assert_eq!(seen[what], wrong, "{name}: {what}");
        }
        let (console, requests) = browser.logs();
        assert_eq!(console, Vec::<String>::new(), "{name}");
        let asked: Vec<_> = requests.iter().filter(|url| !url.starts_with("data:")).collect();
        assert_eq!(asked, [&format!("file://{}", page.display())], "{name}");
    }
    // Somebody listens, and the page's own policy keeps what is from elsewhere out.
    browser.script("console.error('heard'); new Image().src = 'http://127.0.0.1:9/x.png'");
    let (console, _) = browser.logs();
    assert!(
        ["heard", "Content Security Policy"].iter().all(|word| console.iter().any(|line| line.contains(word))),
        "{console:?}"
    );
}

/// What of the page is wider than the screen, too faint (WCAG 2.2, 1.4.3: 4.5 to 1), or out of order.
const LOOK: &str = r"
const all = what => [...document.querySelectorAll(what)];
const seen = all('body *').filter(one => one.getClientRects().length && !one.closest('.hidden'));
const rgb = text => text.match(/[\d.]+/g).map(Number);
const light = ([r, g, b]) => [r, g, b].map(c => c / 255).map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
  .reduce((sum, c, at) => sum + c * [0.2126, 0.7152, 0.0722][at], 0);
const behind = one => {
  for (; one; one = one.parentElement) {
    const colour = rgb(getComputedStyle(one).backgroundColor);
    if (colour[3] !== 0) return colour;
  }
  return [255, 255, 255];
};
const faint = seen.filter(one => [...one.childNodes].some(node => node.nodeType == 3 && node.textContent.trim())).filter(one => {
  const style = getComputedStyle(one);
  const [a, b] = [light(rgb(one.closest('svg') ? style.fill : style.color)), light(behind(one))].sort((a, b) => b - a);
  return parseFloat(style.fontSize) > 0 && !one.closest('title') && (a + 0.05) / (b + 0.05) < 4.5;
});
const levels = all('h1, h2, h3').map(one => Number(one.tagName[1]));
const ids = all('[id]').map(one => one.id);
const brief = list => [...new Set(list.map(one => `${one.tagName}.${one.getAttribute('class')} ${one.textContent.slice(0, 40)}`))];
return {
  width: document.documentElement.scrollWidth,
  wide: brief(seen.filter(one => one.getBoundingClientRect().right > innerWidth + 1 && !one.closest('svg'))),
  faint: brief(faint),
  background: getComputedStyle(document.documentElement).backgroundColor,
  lang: document.documentElement.lang,
  headings: levels[0] == 1 && levels.every((level, at) => at == 0 || level <= levels[at - 1] + 1) ? '' : levels.join(),
  headers: brief(all('th:not([scope])')).join(),
  twice: ids.filter((id, at) => ids.indexOf(id) != at).join(),
};";

#[test]
fn a_sink_that_cannot_be_read_is_shown_and_the_page_is_made_all_the_same() {
    use std::os::unix::fs::PermissionsExt as _;
    let (site, days) = eventful();
    std::fs::remove_dir_all(site.path(ODD_PLACE)).unwrap();
    let file = site.path("report.html");
    std::fs::write(&file, "the old page").unwrap();
    let said = site.run("report", &["--output", file.to_str().unwrap()]);
    assert_eq!(said.status, 3, "{}", said.err);
    assert!(said.err.contains("error: sink `copy`") && said.out.is_empty(), "{said:?}");
    let html = std::fs::read_to_string(&file).unwrap();
    assert!(html.contains("The sink copy cannot be read"), "{html}");
    assert!(html.contains(&days.at(LAST).to_string()), "the days of the other sink are there");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o644);
    let said = site.run("report", &["--json"]);
    let facts: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!((said.status, &facts["verdict"]["level"]), (3, &"bad".into()));
}

/// As root these are lost when they are replaced; the devices here are our own.
#[test]
fn the_page_goes_through_what_cannot_be_replaced() {
    use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, symlink};
    let site = Site::new("sqlite:billing.sqlite");
    std::fs::File::create(site.path("billing.sqlite")).unwrap();
    let report = |name: &str| {
        let path = site.path(name);
        site.run("report", &["--output", path.to_str().unwrap()])
    };
    let pipe = site.path("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let reading = pipe.clone();
    let reader = std::thread::spawn(move || std::fs::read_to_string(reading).unwrap());
    let said = report("pipe");
    assert!(std::fs::symlink_metadata(&pipe).unwrap().file_type().is_fifo(), "{said:?}");
    assert!(reader.join().unwrap().contains("</html>"));
    let device = site.path("null");
    if std::process::Command::new("mknod").arg(&device).args(["c", "1", "3"]).status().unwrap().success() {
        assert_eq!(report("null").err, said.err);
        assert!(std::fs::symlink_metadata(&device).unwrap().file_type().is_char_device());
    }
    std::fs::create_dir(site.path("html")).unwrap();
    symlink("html/page.html", site.path("link")).unwrap();
    for _ in 0..2 {
        report("link");
        assert!(site.path("link").is_symlink());
        let page = std::fs::metadata(site.path("html/page.html")).unwrap();
        assert!(page.len() > 1000 && page.mode() & 0o777 == 0o600);
    }
    let path = site.path("html/page.html");
    site.run("report", &["--output", path.to_str().unwrap(), "--mode", "0644"]);
    assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o644);
}

#[test]
fn the_page_says_whether_all_is_well() {
    let site = Site::new("sqlite:billing.sqlite");
    let generator = Generator::new(Settings { start: Date::constant(2026, 1, 1), ..Settings::default() });
    let load = |from: i16, to: i16| {
        tokio::runtime::Runtime::new().unwrap().block_on(async {
            let options = sqlx::sqlite::SqliteConnectOptions::new().filename(site.path("billing.sqlite"));
            let mut billing = options.connect().await.unwrap();
            for number in from..to {
                let day = Date::constant(2026, 1, 1).checked_add(i64::from(number).days()).unwrap();
                sqlite::load(&mut billing, generator.exactly(day, 5)).await.unwrap();
            }
        });
    };
    tokio::runtime::Runtime::new().unwrap().block_on(sqlite::create(&site.path("billing.sqlite"))).unwrap();
    assert!(site.ok("report", &[]).out.contains("Nothing is saved yet."));
    load(0, 40);
    site.ok("run", &[]);
    site.ok("verify", &[]);
    let said = site.ok("report", &[]);
    assert!(said.out.contains("Everything is saved everywhere."), "{}", said.out);
    assert!(!said.out.contains("class=\"findings\""), "{}", said.out);
    let said = site.ok("report", &["--months", "1"]);
    assert!(said.out.contains("older days are saved too") && !said.out.contains("data-day=\"2026-01-31\""));
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let said = site.ok("report", &["--max-age", "1s"]);
    assert!(said.out.contains("Something is wrong.") && said.out.contains("The last run that went well ended"));

    // What a verification found is marked on its day, in words, too.
    let hurt = site.live().into_iter().find(|path| path.ends_with("ar_cdr-2026-02-05.parquet")).unwrap();
    let mut bytes = std::fs::read(&hurt).unwrap();
    bytes[40] ^= 1;
    std::fs::write(&hurt, bytes).unwrap();
    assert_eq!(site.run("verify", &[]).status, 4);
    let html = site.run("report", &[]).out;
    let cell = html.split("<td").find(|cell| cell.contains("data-day=\"2026-02-05\"")).unwrap();
    assert!(cell.contains("damaged\"") && cell.contains("‼"), "{cell}");
    assert!(cell.contains("title=\"2026-02-05: damaged; damaged generation 1 in vault: "), "{cell}");
    assert!(
        html.contains("<strong>damaged</strong>") && html.contains("a verification found damage in a sink"),
        "the legend says what it means"
    );
    let row = html.split("<tr").find(|row| row.contains("data-partition=\"2026-02-05\"")).unwrap();
    assert!(row.contains("damaged generation 1 in vault"), "{row}");
}
