//! What searches find, and in which order.

use super::*;

#[test]
fn chinese_japanese_and_korean_are_found() {
    let place = Place::new(&[
        ("ja.md", "# 設定ガイド\n\n東京都のサーバーを再起動してください。ﾃｽﾄも行います。\n"),
        ("zh.md", "# 安装指南\n\n请先安装数据库，然后启动服务器。\n"),
        ("ko.md", "# 설치 안내\n\n데이터베이스를 먼저 설치하십시오.\n"),
        ("en.md", "# Other\n\nNothing of the kind.\n"),
    ]);
    let docs = place.open();
    for (query, path) in [
        ("再起動", "ja.md"),
        ("東京都 サーバー", "ja.md"),
        ("テスト", "ja.md"),
        ("設定", "ja.md"),
        ("都", "ja.md"),
        ("ド", "ja.md"),
        ("数据库", "zh.md"),
        ("启动服务器", "zh.md"),
        ("器", "zh.md"),
        ("설치", "ko.md"),
        ("데이터베이스", "ko.md"),
        ("내", "ko.md"),
        // Decomposed, as some file systems and keyboards write it.
        ("\u{1109}\u{1165}\u{11af}\u{110e}\u{1175}", "ko.md"),
        // Not in the text in this form: any pair is enough.
        ("東京の再起動の方法", "ja.md"),
    ] {
        assert_eq!(paths(&docs, query), [path], "{query}");
    }
    let hit = &docs.search("東京都", None, None).unwrap()[0];
    assert_eq!(hit.heading, "設定ガイド");
    assert!(hit.snippet.starts_with("**東京都**のサーバー"), "{}", hit.snippet);
}

#[test]
fn a_heading_ranks_above_a_body_and_a_title_above_both() {
    let filler = "Some words about other things entirely. ".repeat(10);
    let place = Place::new(&[
        ("a.md", &format!("# Alpha\n\n{filler} rotation rotation {filler}")),
        ("b.md", &format!("# Beta\n\n## Rotation\n\n{filler}")),
        ("c.md", &format!("---\ntitle: Rotation\n---\n# Gamma\n\n## Rotation\n\n{filler}")),
    ]);
    assert_eq!(paths(&place.open(), "rotation")[0], "c.md");
    assert_eq!(
        paths(&place.open(), "rotation").into_iter().filter(|p| p != "c.md").collect::<Vec<_>>(),
        ["b.md", "a.md"]
    );
}

#[test]
fn all_words_first_then_any_and_the_last_may_be_half_typed() {
    let place =
        Place::new(&[("a.md", "keys and rotation"), ("b.md", "keys and locks"), ("c.md", "Crème brûlée")]);
    let docs = place.open();
    assert_eq!(paths(&docs, "keys rotation"), ["a.md"]);
    assert_eq!(paths(&docs, "keys rotat"), ["a.md"]);
    assert_eq!(paths(&docs, "zebra locks"), ["b.md"]);
    assert_eq!(paths(&docs, "rotat keys"), ["a.md", "b.md"], "only the last word may be unfinished");
    assert_eq!(paths(&docs, "creme BRULEE"), ["c.md"]);
    assert_eq!(docs.search("creme", None, None).unwrap()[0].snippet, "**Crème** brûlée");
    assert_eq!(paths(&docs, "zebra"), [""; 0]);
}

#[test]
fn identifiers_are_found_as_they_are_written() {
    let place = Place::new(&[
        ("a.md", "set `audit.sync` here"),
        ("b.md", "sync the audit"),
        ("c.md", "redirect_uri"),
    ]);
    let docs = place.open();
    assert_eq!(paths(&docs, "audit.sync"), ["a.md"]);
    assert_eq!(paths(&docs, "redirect_uri"), ["c.md"]);
    assert_eq!(paths(&docs, "uri"), ["c.md"]);
}

#[test]
fn hits_say_where_and_can_be_limited() {
    let place = Place::new(&[("a/guide.md", GUIDE), ("b/guide.md", GUIDE)]);
    let docs = place.open();
    let hits = docs.search("unit", None, Some("b/")).unwrap();
    assert_eq!(hits.len(), 1);
    let hit = &hits[0];
    assert_eq!((hit.path.as_str(), hit.title.as_str(), hit.line), ("b/guide.md", "Guide", Some(9)));
    assert_eq!(hit.heading, "Guide > Install > Linux");
    assert_eq!(hit.snippet, "Run portcullis serve as a **unit**.");
    assert!(hit.score > 0.0);
    assert_eq!(docs.search("guide", Some(1), None).unwrap().len(), 1);
    assert!(docs.search("guide", None, None).unwrap().len() > 2);
}

#[test]
fn pages_are_read_by_heading_and_in_parts() {
    let place =
        Place::new(&[("guide.md", GUIDE), ("page.html", "<h1>Top</h1><p>one<h2>Sub</h2><p>zwei ☃ drei")]);
    let docs = place.open();
    let read = |heading| docs.read("guide.md", Some(heading), None, None).unwrap();
    let linux = read("linux");
    assert_eq!(linux.text, "### Linux\n\nRun `portcullis serve` as a unit.\n\n");
    assert_eq!(linux.heading.as_deref(), Some("Guide > Install > Linux"));
    assert_eq!(read("Guide > Install > Linux"), linux);
    assert_eq!(read("### Linux"), linux);
    assert!(read("Install").text.ends_with("Drag it.\n\n"));
    assert_eq!(read("Linuxes").text, "## Linuxes\n\nOther ones.\n");
    assert_eq!(read("Guide").text, GUIDE);

    let sub = docs.read("page.html", Some("Sub"), None, None).unwrap().text;
    assert_eq!(sub, "## Sub\n\nzwei ☃ drei\n\n");
    let total = sub.chars().count();
    let mut parts = String::new();
    let mut offset = Some(0);
    while let Some(at) = offset {
        let page = docs.read("page.html", Some("Sub"), Some(at), Some(5)).unwrap();
        assert_eq!((page.offset, page.total), (at, total));
        parts += &page.text;
        offset = page.next_offset;
    }
    assert_eq!(parts, sub);
    let beyond = docs.read("page.html", None, Some(usize::MAX), Some(usize::MAX)).unwrap();
    assert_eq!((beyond.text.as_str(), beyond.next_offset), ("", None));
}

/// LIMIT-04, DOCS-02: the most expensive texts and queries for them end within the time that a search may take.
#[test]
fn no_query_takes_long() {
    let (han, pieces) = ("漢".repeat(400_000), "a_".repeat(300_000));
    let place = Place::new(&[("1.md", &han), ("2.md", &han), ("3.md", &pieces)]);
    let docs = place.open();
    for query in ["漢".repeat(510), "a_".repeat(250), "漢 ".repeat(250), format!("{} b", "漢".repeat(400))]
    {
        let began = std::time::Instant::now();
        match docs.search(&query, Some(50), None) {
            Ok(_) | Err(DocsError::TooLong) => {}
            Err(other) => panic!("{other}"),
        }
        let took = began.elapsed();
        assert!(took < Duration::from_secs(8), "{took:?} for {}", query.chars().take(20).collect::<String>());
    }
}

/// LIMIT-04: a search that nobody waits for ends at once, and the index answers the next one.
#[test]
fn an_abandoned_search_is_stopped() {
    let place = Place::new(&[("a.md", "keys and rotation")]);
    let docs = place.open();
    let left = tokio_util::sync::CancellationToken::new();
    left.cancel();
    let stopped = docs.search_until(&Stop::when_left(left), "absent", None, None);
    assert!(matches!(stopped, Err(DocsError::TooLong)), "{stopped:?}");
    assert_eq!(paths(&docs, "rotation"), ["a.md"]);
}
