//! The little that is changed in the texts that a server gives of its objects. Quoted text and comments are left alone.

use super::super::connect::quoted;

/// The bytes of a statement that are neither quoted nor commented, and where.
pub(super) fn outside(sql: &[u8]) -> impl Iterator<Item = (usize, u8)> + '_ {
    let mut at = 0;
    std::iter::from_fn(move || {
        loop {
            let byte = *sql.get(at)?;
            let rest = sql.get(at..).unwrap_or_default();
            let skipped = match byte {
                b'\'' | b'"' | b'`' => quote(rest),
                b'#' => line(rest),
                b'-' if rest.starts_with(b"-- ") => line(rest),
                b'/' if rest.starts_with(b"/*") => {
                    rest.windows(2).skip(2).position(|pair| pair == b"*/").map_or(rest.len(), |end| end + 4)
                }
                _ => {
                    at += 1;
                    return Some((at - 1, byte));
                }
            };
            at += skipped;
        }
    })
}

fn line(rest: &[u8]) -> usize {
    rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len())
}

/// How long the quoted text is that begins here. A doubled quote ends and begins again, which comes to the same.
pub(super) fn quote(rest: &[u8]) -> usize {
    let Some((&mark, inner)) = rest.split_first() else { return 0 };
    let mut escaped = false;
    for (at, &byte) in inner.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if mark != b'`' => escaped = true,
            _ if byte == mark => return at + 2,
            _ => {}
        }
    }
    rest.len()
}

/// The same with doubled quotes in it.
pub(super) fn whole(text: &[u8]) -> usize {
    let mut length = quote(text);
    while let Some(rest) = text.get(length..).filter(|rest| !rest.is_empty() && rest.first() == text.first()) {
        length += quote(rest);
    }
    length
}

/// Where the options of a `CREATE TABLE` begin: behind the list of columns.
pub(super) fn options(sql: &[u8]) -> usize {
    let mut depth = 0_u32;
    for (at, byte) in outside(sql) {
        match byte {
            b'(' => depth += 1,
            b')' if depth == 1 => return at + 1,
            b')' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    sql.len()
}

/// A table that is made only where there is none. The next number of an empty table says nothing, and would make each
/// dump another.
pub(crate) fn only_schema(sql: &[u8]) -> Vec<u8> {
    const CREATE: &[u8] = b"CREATE TABLE ";
    let body = sql.strip_prefix(CREATE).unwrap_or(sql);
    let (columns, options) = body.split_at(options(body));
    let numbered = b" AUTO_INCREMENT=";
    let words = outside(options).map(|(at, _)| at);
    let found = words.into_iter().find(|at| options.get(*at..).is_some_and(|rest| rest.starts_with(numbered)));
    let options = match found {
        Some(at) => {
            let (before, rest) = options.split_at(at);
            let after = rest.get(numbered.len()..).unwrap_or_default();
            let digits = after.iter().take_while(|byte| byte.is_ascii_digit()).count();
            [before, after.get(digits..).unwrap_or_default()].concat()
        }
        None => options.to_vec(),
    };
    [CREATE, b"IF NOT EXISTS ", columns, &options].concat()
}

/// Without the name of the database before other names, for a restore may be into another: sequences have it in defaults,
/// columns in views whose account is gone. A table may have another name in a view, which can be the database's.
pub(crate) fn unqualified(sql: &[u8], database: &str, is_view: bool) -> Vec<u8> {
    let qualifier = format!("{}.", quoted(database)).into_bytes();
    let goes_on = |rest: &[u8]| {
        let rest = rest.get(qualifier.len()..).unwrap_or_default();
        let after = rest.get(quote(rest)..).unwrap_or_default();
        rest.starts_with(b"`") && (after.starts_with(b".`") || after.starts_with(b"("))
    };
    let mut out = Vec::with_capacity(sql.len());
    let mut from = 0;
    while let Some(rest) = sql.get(from..).filter(|rest| !rest.is_empty()) {
        // Behind a quote it is the second half of a doubled one, within a name.
        let is_within = sql.get(..from).is_some_and(|before| before.ends_with(b"`"));
        if rest.starts_with(&qualifier) && !is_within && (!is_view || goes_on(rest)) {
            from += qualifier.len();
            continue;
        }
        let length = match rest.first() {
            Some(b'\'' | b'"' | b'`') => quote(rest),
            _ => 1,
        };
        out.extend_from_slice(rest.get(..length).unwrap_or(rest));
        from += length;
    }
    out
}

/// A trigger under its bare name on its bare table, in UTF-8, and from where on its own text follows: the server keeps what
/// somebody once wrote, the database's name too.
pub(super) fn trigger(sql: &[u8], charset: &str, (name, when, table): (&str, &str, &str)) -> Option<(Vec<u8>, usize)> {
    let (from, to) = definer_span(sql)?;
    let definer = sql.get(from..to)?;
    let code: Vec<(usize, u8)> =
        outside(&masked(sql, charset)).map(|(at, byte)| (at, byte.to_ascii_lowercase())).collect();
    let ends = |from: usize, word: &[u8]| -> Option<usize> {
        let rest = code.get(from..)?;
        let rest = rest.get(rest.iter().position(|(_, byte)| !byte.is_ascii_whitespace())?..)?;
        let is_it = rest.len() >= word.len() && rest.iter().zip(word).all(|((_, byte), wanted)| byte == wanted);
        is_it.then(|| code.len() - rest.len() + word.len())
    };
    let body = (0..code.len()).find_map(|from| {
        let starts = code.get(from).is_some_and(|(_, byte)| byte.is_ascii_whitespace())
            // What stood between, quoted or commented, is not here.
            || from > 0 && code.get(from)?.0 != code.get(from - 1)?.0 + 1;
        let end = ends(ends(ends(from, b"for").filter(|_| starts)?, b"each")?, b"row")?;
        let after = code.get(end).map_or(sql.len(), |(at, _)| *at);
        let last = code.get(end - 1)?.0 + 1;
        Some(if after == sql.len() { after } else { last })
    })?;
    let made = format!(" TRIGGER {} {when} ON {} FOR EACH ROW", quoted(name), quoted(table));
    Some(([b"CREATE ", definer, made.as_bytes()].concat(), body))
}

/// Where what an event does begins: what is before, the server writes in UTF-8.
pub(super) fn event_body(sql: &[u8]) -> usize {
    outside(sql).map(|(at, _)| at).find(|at| sql.get(*at..).is_some_and(|rest| rest.starts_with(b" DO "))).unwrap_or(0)
}

/// The comment of a routine, with its quotes, which the server writes in UTF-8.
pub(super) fn routine_comment(sql: &[u8]) -> Option<std::ops::Range<usize>> {
    const COMMENT: &[u8] = b"\n    COMMENT ";
    let found =
        outside(sql).map(|(at, _)| at).find(|at| sql.get(*at..).is_some_and(|rest| rest.starts_with(COMMENT)))?;
    let from = found + COMMENT.len();
    Some(from..from + whole(sql.get(from..)?))
}

/// The same with every character of two bytes taken out of the way: the second can look like a quote or a backslash.
pub(super) fn masked(sql: &[u8], charset: &str) -> Vec<u8> {
    let mut out = sql.to_vec();
    let mut at = 0;
    let is_lead = |byte: u8| match charset {
        "sjis" | "cp932" => matches!(byte, 0x81..=0x9f | 0xe0..=0xfc),
        "big5" | "gbk" => byte >= 0x81,
        _ => false,
    };
    while at < sql.len() {
        let leads = sql.get(at).is_some_and(|byte| is_lead(*byte)) && at + 1 < sql.len();
        if leads {
            out.splice(at..at + 2, *b"xx");
        }
        at += if leads { 2 } else { 1 };
    }
    out
}

fn definer_span(sql: &[u8]) -> Option<(usize, usize)> {
    let mut at = b"CREATE ".len();
    if !sql.starts_with(b"CREATE ") {
        return None;
    }
    if sql.get(at..)?.starts_with(b"ALGORITHM=") {
        at += sql.get(at..)?.iter().position(|byte| *byte == b' ')? + 1;
    }
    let from = at;
    if !sql.get(at..)?.starts_with(b"DEFINER=") {
        return None;
    }
    at += b"DEFINER=".len();
    loop {
        let rest = sql.get(at..)?;
        match rest.first()? {
            b'`' | b'"' | b'\'' => at += quote(rest),
            b'@' => at += 1,
            _ => return (at > from + b"DEFINER=".len()).then_some((from, at)),
        }
    }
}

/// The statement with another definer, if it has one.
pub(crate) fn with_definer(sql: Vec<u8>, definer: &str) -> Vec<u8> {
    match definer_span(&sql) {
        Some((from, to)) => {
            let (head, tail) = (sql.get(..from).unwrap_or_default(), sql.get(to..).unwrap_or_default());
            [head, b"DEFINER=", definer.as_bytes(), tail].concat()
        }
        None => sql,
    }
}

/// A `CREATE TABLE` of TokuDB without the options that only TokuDB knows.
pub(crate) fn without_engine(sql: Vec<u8>) -> Vec<u8> {
    let at = options(&sql);
    let (columns, rest) = sql.split_at(at);
    let Ok(options) = std::str::from_utf8(rest) else { return sql };
    if !options.to_ascii_lowercase().contains(" engine=tokudb") {
        return sql;
    }
    let of_tokudb = |option: &&str| {
        let option = option.to_ascii_lowercase();
        ["engine=tokudb", "row_format=tokudb", "`compression`="].iter().any(|own| option.starts_with(own))
    };
    let kept: Vec<&str> = words(options).into_iter().filter(|option| !of_tokudb(option)).collect();
    [columns, kept.join(" ").as_bytes()].concat()
}

/// Parts at the spaces outside of quoted text.
fn words(text: &str) -> Vec<&str> {
    let mut words = Vec::new();
    let mut from = 0;
    for (at, byte) in outside(text.as_bytes()) {
        if byte == b' ' {
            words.push(text.get(from..at).unwrap_or_default());
            from = at + 1;
        }
    }
    words.push(text.get(from..).unwrap_or_default());
    words
}

/// What a server says of a statement with rows in it, without the values that it repeats.
pub(crate) fn without_values(said: &str) -> String {
    let mut parts = said.split('\'');
    let mut out = parts.next().unwrap_or_default().to_owned();
    let mut parts = parts.peekable();
    while parts.next().is_some() {
        out.push_str("'...'");
        out.push_str(parts.next().unwrap_or_default());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: Vec<u8>) -> String {
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn numbers_that_move_by_themselves_are_left_out() {
        let of = |sql: &str| text(only_schema(sql.as_bytes()));
        assert_eq!(
            of(
                "CREATE TABLE `a` (\n  `b` int(11) COMMENT ') AUTO_INCREMENT=3',\n  KEY (`b`)\n) ENGINE=InnoDB AUTO_INCREMENT=17 DEFAULT CHARSET=utf8mb4"
            ),
            "CREATE TABLE IF NOT EXISTS `a` (\n  `b` int(11) COMMENT ') AUTO_INCREMENT=3',\n  KEY (`b`)\n) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4"
        );
        let comment = "`a` (`x` int) ENGINE=InnoDB COMMENT='it''s \\' AUTO_INCREMENT=5'";
        assert_eq!(of(&format!("CREATE TABLE {comment}")), format!("CREATE TABLE IF NOT EXISTS {comment}"));
    }

    #[test]
    fn the_databases_own_name_is_left_out_of_defaults_alone() {
        let sql = b"CREATE TABLE `t` (`i` int DEFAULT nextval(`d`.`s`) COMMENT 'of `d`.`s`', `x``d`.`y` int, `d` int)";
        assert_eq!(
            text(unqualified(sql, "d", false)),
            "CREATE TABLE `t` (`i` int DEFAULT nextval(`s`) COMMENT 'of `d`.`s`', `x``d`.`y` int, `d` int)"
        );
        let view = b"CREATE VIEW `v` AS select `d`.`t`.`x` AS `x`,`d`.`y`,`d`.`f`(1),'`d`.`t`.`x`' from `t` `d`";
        assert_eq!(
            text(unqualified(view, "d", true)),
            "CREATE VIEW `v` AS select `t`.`x` AS `x`,`d`.`y`,`f`(1),'`d`.`t`.`x`' from `t` `d`"
        );
    }

    #[test]
    fn a_trigger_is_made_in_the_database_at_hand() {
        let of = |sql: &str| {
            let (head, body) = trigger(sql.as_bytes(), "utf8mb4", ("t", "BEFORE INSERT", "g"))?;
            Some(text([&head, &sql.as_bytes()[body..]].concat()))
        };
        let head = "CREATE DEFINER=`a b`@`c` TRIGGER `t` BEFORE INSERT ON `g` FOR EACH ROW";
        assert_eq!(
            of(
                "CREATE DEFINER=`a b`@`c` trigger d.t before insert on `d`.`for each row`\n for /* x */ each\trow set @a='for each row'"
            ),
            Some(format!("{head} set @a='for each row'"))
        );
        assert_eq!(
            of("CREATE DEFINER=`a b`@`c` TRIGGER t BEFORE INSERT ON `g`FOR EACH ROW/* y */BEGIN END"),
            Some(format!("{head}/* y */BEGIN END"))
        );
        assert_eq!(of("CREATE TRIGGER t BEFORE INSERT ON g FOR EACH ROW SET @a = 1"), None);
    }

    #[test]
    fn the_second_byte_of_a_character_is_no_quote_and_no_backslash() {
        assert_eq!(masked(b"\xd5\x5c '\x95\x5c' \x81", "gbk"), b"xx 'xx' \x81");
        assert_eq!(masked(b"\x83\x5c \xb1'", "sjis"), b"xx \xb1'");
        assert_eq!(masked("é\\'".as_bytes(), "utf8mb4"), "é\\'".as_bytes());
    }

    #[test]
    fn what_a_server_writes_in_utf_8_before_a_text_is_found() {
        let sql = b"CREATE DEFINER=`a` EVENT `x DO y` ON SCHEDULE EVERY 1 DAY COMMENT ' DO ' DO SELECT ' DO '";
        assert_eq!(&sql[event_body(sql)..], b" DO SELECT ' DO '");
        let sql = b"CREATE FUNCTION `f`(a ENUM('\n    COMMENT ')) RETURNS int(11)\n    COMMENT 'it''s'\nRETURN 1";
        assert_eq!(&sql[routine_comment(sql).unwrap()], b"'it''s'");
    }

    #[test]
    fn a_definer_is_replaced_in_its_place() {
        let of = |sql: &str| text(with_definer(sql.as_bytes().to_vec(), "CURRENT_USER"));
        assert_eq!(of("CREATE DEFINER=`a``@`@`%` EVENT `e`"), "CREATE DEFINER=CURRENT_USER EVENT `e`");
        assert_eq!(
            of("CREATE ALGORITHM=MERGE DEFINER=\"r\"@\"h\" SQL SECURITY DEFINER VIEW v AS SELECT 'DEFINER=`a`@`b`'"),
            "CREATE ALGORITHM=MERGE DEFINER=CURRENT_USER SQL SECURITY DEFINER VIEW v AS SELECT 'DEFINER=`a`@`b`'"
        );
        assert_eq!(of("CREATE DEFINER=`role` PROCEDURE p()"), "CREATE DEFINER=CURRENT_USER PROCEDURE p()");
        assert_eq!(
            of("INSERT INTO t VALUES ('CREATE DEFINER=`a`@`b`')"),
            "INSERT INTO t VALUES ('CREATE DEFINER=`a`@`b`')"
        );
    }

    #[test]
    fn tokudb_becomes_the_default_engine() {
        let of = |options: &str| text(without_engine(format!("CREATE TABLE `t` (`x` int){options}").into()));
        let made = |options: &str| format!("CREATE TABLE `t` (`x` int){options}");
        assert_eq!(
            of(
                " ENGINE=TokuDB AUTO_INCREMENT=5 DEFAULT CHARSET=utf8mb4 ROW_FORMAT=TOKUDB_ZLIB `compression`='tokudb_zlib'"
            ),
            made(" AUTO_INCREMENT=5 DEFAULT CHARSET=utf8mb4")
        );
        assert_eq!(of(" ENGINE=TokuDB COMMENT='engine=tokudb; x'"), made(" COMMENT='engine=tokudb; x'"));
        assert_eq!(of(" ENGINE=InnoDB COMMENT='x'"), made(" ENGINE=InnoDB COMMENT='x'"));
    }

    #[test]
    fn no_value_of_a_row_is_told() {
        assert_eq!(
            without_values("Duplicate entry '39 02 1234' for key 'PRIMARY'"),
            "Duplicate entry '...' for key '...'"
        );
        assert_eq!(without_values("near 'x'),('y"), "near '...'),('...'");
        assert_eq!(without_values("Lost"), "Lost");
    }
}
