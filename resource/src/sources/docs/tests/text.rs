//! Documents by CommonMark, YAML and Unicode: headings, text and words. No text is lost.

use super::{Place, paths};
use crate::sources::docs::section::{Document, Kind};

type Shape<'a> = &'a [(&'a str, u32, &'a str)];

fn shape(document: &Document) -> Vec<(&str, u32, &str)> {
    document.sections.iter().map(|s| (s.heading.as_str(), s.line.unwrap(), s.body.as_str())).collect()
}

/// A thematic break in the middle of a file is a break, and the text between two of them is text.
#[test]
fn text_between_rules_is_text() {
    for rule in ["---", "***", "___", "+++"] {
        for between in
            ["lost words\n", "title: lost words\n", "title = \"lost words\"\n", "a: 1\n\n# Lost words\n"]
        {
            for before in ["First.\n\n", "# First\n\n", "\n", "---\ntitle: First\n---\n", "text\n"] {
                let source = format!("{before}{rule}\n\n{between}\n{rule}\n\nlast\n");
                let document = Document::parse("a.md", Kind::Markdown, &source);
                let all: Vec<&str> =
                    document.sections.iter().flat_map(|s| [s.heading.as_str(), &s.body]).collect();
                let all = all.join(" ").to_lowercase();
                assert!(all.contains("lost words") && all.contains("last"), "{source:?}: {all:?}");
                assert!(!document.title.to_lowercase().contains("title:"), "{source:?}");
            }
        }
    }
}

/// Headings by CommonMark, and text that only looks like one.
#[test]
#[allow(clippy::too_many_lines, reason = "one table of Markdown, best read in one piece")]
fn headings_are_commonmarks() {
    let table: &[(&str, &str, Shape<'_>)] = &[
        ("Guide\n=====\n\nSub\n---\ntext\n", "Guide", &[("Guide", 1, ""), ("Guide > Sub", 4, "text")]),
        ("A long\nheading\n===\ntext\n", "A long heading", &[("A long heading", 1, "text")]),
        ("## Guide ##   \ntext\n", "Guide", &[("Guide", 1, "text")]),
        ("# C# #\ntext #\n", "C#", &[("C#", 1, "text #")]),
        ("   # Guide\n", "Guide", &[("Guide", 1, "")]),
        ("#\tGuide\n", "Guide", &[("Guide", 1, "")]),
        ("#Guide\n", "a", &[("", 1, "#Guide")]),
        ("####### Guide\n", "a", &[("", 1, "####### Guide")]),
        ("\\# Guide\n", "a", &[("", 1, "# Guide")]),
        ("    # code\n", "a", &[("", 1, "# code")]),
        ("\t# code\n", "a", &[("", 1, "# code")]),
        (
            "# A\n\n```sh\n# not a heading\nrun\n```\n\n## B\n",
            "A",
            &[("A", 1, "# not a heading\nrun"), ("A > B", 8, "")],
        ),
        ("~~~\n# code\n```\n# code\n~~~\n# A\n", "A", &[("", 1, "# code\n```\n# code"), ("A", 6, "")]),
        ("```\nno end\n# code\n", "a", &[("", 1, "no end\n# code")]),
        ("> # Quoted\n> text\n", "Quoted", &[("Quoted", 1, "text")]),
        ("- # Item\n  text\n", "Item", &[("Item", 1, "text")]),
        ("# *A* `b` [c](x.md) ![d](y.png)\n", "A b c d", &[("A b c d", 1, "")]),
        ("# A &amp; B\n", "A & B", &[("A & B", 1, "")]),
        ("#\n\ntext\n", "a", &[("", 3, "text")]),
        ("# A\n\n[label]: https://x.example/ \"T\"\n\nSee [label].\n", "A", &[("A", 1, "See label.")]),
        ("# A > B\ntext\n", "A > B", &[("A > B", 1, "text")]),
        ("# A\n\n| h |\n|---|\n| # c |\n", "A", &[("A", 1, "h\n# c")]),
        ("a\\\nb  \nc<br>d\ne\n", "a", &[("", 1, "a\nb\nc\nd e")]),
        // HTML (§4.6): its headings count; comments and scripts are ignored.
        (
            "<h1 align=\"center\">Guide</h1>\n\n<p>x</p>\n\n## Sub\n",
            "Guide",
            &[("Guide", 1, "x"), ("Guide > Sub", 5, "")],
        ),
        ("<!--\n# not a heading\n-->\n\n# A\n", "A", &[("A", 5, "")]),
        ("<script>\n# x\n\n# y\n</script>\n\n# A\n", "A", &[("A", 7, "")]),
        ("<div>\n\n# A\n\n</div>\n", "A", &[("A", 3, "")]),
        ("<pre>\n# code\n</pre>\n", "a", &[("", 1, "# code")]),
        // Line endings (§2.1), alone and mixed, with front matter before them.
        ("# A\r\rtext\r## B\rmore\r", "A", &[("A", 1, "text"), ("A > B", 4, "more")]),
        ("# A\r\n\r\ntext\r\n## B\r\nmore\r\n", "A", &[("A", 1, "text"), ("A > B", 4, "more")]),
        ("---\rtitle: T\r---\r# A\rtext\r", "T", &[("A", 4, "text")]),
        ("---\r\ntitle: >-\r\n  The\r\n  Guide\r\n---\r\n# A\r\ntext\r\n", "The Guide", &[("A", 6, "text")]),
        ("+++\ntitle = \"T\"\n+++\ntext\n", "T", &[("", 4, "text")]),
        ("---\ntitle: |\n  The\n  Guide\n---\ntext\n", "The Guide", &[("", 6, "text")]),
        // Not a mapping: a thematic break, and a heading with its underline.
        ("---\nNote well\n---\ntext\n", "Note well", &[("Note well", 2, "text")]),
        ("---\n---\ntext\n", "a", &[("", 3, "text")]),
    ];
    for (source, title, sections) in table {
        let document = Document::parse("a.md", Kind::Markdown, source);
        assert_eq!((document.title.as_str(), shape(&document).as_slice()), (*title, *sections), "{source:?}");
    }
    let text = Document::parse("a.txt", Kind::Text, "one\rtwo\r\rthree\r");
    assert_eq!(shape(&text), [("", 1, "one\ntwo\nthree")]);
}

/// A heading that occurs twice is read in both places, and any spelling of its name finds it.
#[test]
fn a_heading_that_stands_twice_is_read_whole() {
    let place = Place::new(&[(
        "a.md",
        "# Guide\n\n## Notes\n\none\n\n## Other\n\ntwo\n\n## Notes\n\nthree\n\n### Deep\n\nfour\n\n## Re\u{301}sume\u{301}\n\nfive\n",
    )]);
    let docs = place.open();
    let read = |heading: &str| docs.read("a.md", Some(heading), None, None).unwrap().text;
    assert_eq!(read("Notes"), "## Notes\n\none\n\n## Notes\n\nthree\n\n### Deep\n\nfour\n\n");
    assert_eq!(read("Guide > Notes"), read("Notes"));
    assert_eq!(read("Other"), "## Other\n\ntwo\n\n");
    assert!(read("R\u{e9}sum\u{e9}").ends_with("five\n"));
    assert!(read("Guide").contains("one") && read("Guide").contains("five"));
}

/// Words of every script are found as people type them, and similar ones are not.
#[test]
fn words_of_every_script_are_found() {
    let place = Place::new(&[
        (
            "shy.md",
            "Pass\u{ad}key regis\u{ad}tration for zero\u{200b}width join\u{200d}er no\u{2060}break \u{feff}mark.\n",
        ),
        ("th.md", "# คู่มือ\n\nการตั้งค่าความปลอดภัยของเซิร์ฟเวอร์น้ำ\n"),
        ("th2.md", "กัน\n"),
        ("lo.md", "ຄູ່ມືການຕິດຕັ້ງເຊີບເວີ\n"),
        ("km.md", "មគ្គុទ្ទេសក៍ដំឡើង\u{200b}ម៉ាស៊ីនមេ\n"),
        ("my.md", "ဆာဗာတပ်ဆင်ခြင်းလမ်းညွှန်\n"),
        ("hi.md", "हिन्दी में सुरक्षा मार्गदर्शिका\n"),
        ("ta.md", "பாதுகாப்பு வழிகாட்டி\n"),
        ("ar.md", "دَلِيلُ الأَمـــان والخادم\n"),
        ("he.md", "מַדְרִיךְ הַתְקָנָה\n"),
        ("fa.md", "راهنمای می\u{200c}خواهم\n"),
        ("tr.md", "IĞDIR ve İSTANBUL ılık\n"),
        ("el.md", "ΟΔΗΓΟΣ ασφαλείας\n"),
        ("de.md", "GROẞE STRASSE\n"),
        ("wide.md", "ＰＡＳＳＰＨＲＡＳＥ １２３\n"),
        ("nfd.md", "Re\u{301}sume\u{301} x\u{302}y\n"),
        ("emoji.md", "deploy👩\u{200d}💻today ❤\u{fe0f}green 1\u{fe0f}\u{20e3}key\n"),
    ]);
    let docs = place.open();
    for (query, path) in [
        ("passkey", "shy.md"),
        ("pass\u{ad}key", "shy.md"),
        ("registration", "shy.md"),
        ("zerowidth", "shy.md"),
        ("joiner nobreak mark", "shy.md"),
        ("ความปลอดภัย", "th.md"),
        ("เซิร์ฟเวอร์", "th.md"),
        ("ตั้งค่า", "th.md"),
        ("คู่มือ", "th.md"),
        ("น้ำ", "th.md"),
        ("ຕິດຕັ້ງ", "lo.md"),
        ("ម៉ាស៊ីន", "km.md"),
        ("ដំឡើងម៉ាស៊ីនមេ", "km.md"),
        ("ဆာဗာ", "my.md"),
        ("လမ်းညွှန်", "my.md"),
        ("हिन्दी", "hi.md"),
        ("सुरक्षा मार्ग", "hi.md"),
        ("பாதுகாப்பு", "ta.md"),
        ("دليل", "ar.md"),
        ("الامان", "ar.md"),
        ("الأمان", "ar.md"),
        ("מדריך התקנה", "he.md"),
        ("میخواهم", "fa.md"),
        ("ığdır", "tr.md"),
        ("igdir", "tr.md"),
        ("istanbul", "tr.md"),
        ("İstanbul", "tr.md"),
        ("ILIK", "tr.md"),
        ("οδηγός", "el.md"),
        ("ΑΣΦΑΛΕΙΑΣ", "el.md"),
        ("große straße", "de.md"),
        ("passphrase 123", "wide.md"),
        ("ｐａｓｓｐｈｒａｓｅ", "wide.md"),
        ("résumé", "nfd.md"),
        ("resume xy", "nfd.md"),
        ("today", "emoji.md"),
        ("green", "emoji.md"),
    ] {
        assert_eq!(paths(&docs, query), [path], "{query}");
    }
    // Vowel signs and tone marks distinguish words.
    for query in ["กิน", "हान्दू", "பதிகப்பி"] {
        assert!(paths(&docs, query).is_empty(), "{query}");
    }
    // Not found, because they are in no text: a pair in another order, half a word of a script with marks.
    for query in ["ภัยปลอด", "वदस", "ဗာဆာဆာ", "width", "key registry"] {
        let found = docs.search(query, None, None).unwrap();
        assert!(found.iter().all(|hit| !hit.snippet.contains(&format!("**{query}**"))), "{query}: {found:?}");
    }
    for (query, marked) in [
        ("passkey", "**Pass\u{ad}key**"),
        ("ความปลอดภัย", "**ความปลอดภัย**"),
        ("น้ำ", "**น้ำ**"),
        ("ဆာဗာ", "**ဆာဗာ**"),
        ("الامان", "**الأَمـــان**"),
        ("istanbul", "**İSTANBUL**"),
        ("strasse", "**STRASSE**"),
    ] {
        let found = &docs.search(query, None, None).unwrap()[0];
        assert!(found.snippet.contains(marked), "{query}: {}", found.snippet);
    }
}

/// DOCS-02: a byte order mark, with and without front matter after it.
#[test]
fn a_byte_order_mark_hides_nothing() {
    let place = Place::new(&[
        ("a.md", "\u{feff}---\ntitle: The Guide\n---\n# Start\n"),
        ("b.md", "\u{feff}# Other\n"),
    ]);
    let docs = place.open();
    let titles: Vec<_> = docs.list(None, None).unwrap().documents.into_iter().map(|d| d.title).collect();
    assert_eq!(titles, ["The Guide", "Other"]);
}

/// DOCS-02: parsing a document takes time in proportion to its length.
#[test]
fn hostile_texts_are_linear() {
    let time = |make: &dyn Fn(usize) -> String, size: usize| {
        let text = make(size);
        let best = (0..3).map(|_| {
            let begun = std::time::Instant::now();
            let document = Document::parse("a.md", Kind::Markdown, &text);
            for section in &document.sections {
                std::hint::black_box(crate::sources::docs::words::indexed(&section.body));
            }
            begun.elapsed()
        });
        best.min().unwrap()
    };
    let shapes: [&dyn Fn(usize) -> String; 8] = [
        &|n| "---\n".repeat(n / 4),
        &|n| format!("---\n{}", "a: [\n".repeat(n / 5)),
        &|n| "น้ำ".repeat(n / 9),
        &|n| "a\u{ad}".repeat(n / 3),
        &|n| format!("a{}", "\u{301}".repeat(n / 2)),
        &|n| "\r".repeat(n),
        &|n| "# a\r\n\r".repeat(n / 6),
        &|n| "<h1>a</h1>\n\n".repeat(n / 12),
    ];
    for (index, make) in shapes.iter().enumerate() {
        let (small, large) = (time(make, 50_000), time(make, 400_000));
        // Eight times the text; a bound of twenty-four times allows for a busy machine.
        let bound = 24 * small.max(std::time::Duration::from_millis(2));
        assert!(large < bound, "shape {index}: {small:?}, then {large:?}");
    }
}
