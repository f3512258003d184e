//! JSON text as a tree.
//!
//! serde_json stops at a depth of 128, and two levels of JSON (an object in an array) are one of Protobuf's hundred.

use std::borrow::Cow;

/// Objects and arrays that may stand in each other. The deepest text that the shredder writes stays far below: 100
/// messages, none of which takes more than two levels.
const DEPTH_MAX: usize = 512;

#[derive(Clone, Debug, PartialEq)]
pub enum Json<'a> {
    Null,
    Bool(bool),
    /// As it is written.
    Number(&'a str),
    String(Cow<'a, str>),
    Array(Vec<Json<'a>>),
    /// In the text's order.
    Object(Vec<(Cow<'a, str>, Json<'a>)>),
}

/// Parses one JSON value (RFC 8259); what is wrong otherwise, and at which byte.
pub fn parse(text: &str) -> Result<Json<'_>, String> {
    let mut parser = Parser { text, at: 0 };
    let value = parser.value(0)?;
    parser.space();
    if parser.at < text.len() { parser.fail("the text goes on behind its value") } else { Ok(value) }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Parser<'a> {
    fn fail<T>(&self, what: &str) -> Result<T, String> {
        Err(format!("not JSON: {what}, at byte {}", self.at))
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// Takes the byte if it comes next.
    fn accept(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, byte: u8) -> Result<(), String> {
        self.space();
        if self.accept(byte) { Ok(()) } else { self.fail(&format!("{:?} was expected", byte as char)) }
    }

    fn value(&mut self, depth: usize) -> Result<Json<'a>, String> {
        if depth > DEPTH_MAX {
            return self.fail("it is nested too deeply");
        }
        self.space();
        match self.peek() {
            Some(b'{') => self.object(depth),
            Some(b'[') => self.array(depth),
            Some(b'"') => Ok(Json::String(self.string()?)),
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ => {
                for (word, value) in [("null", Json::Null), ("true", Json::Bool(true)), ("false", Json::Bool(false))] {
                    if self.text[self.at..].starts_with(word) {
                        self.at += word.len();
                        return Ok(value);
                    }
                }
                self.fail("a value was expected")
            }
        }
    }

    fn object(&mut self, depth: usize) -> Result<Json<'a>, String> {
        let mut members = Vec::new();
        self.expect(b'{')?;
        self.space();
        if self.accept(b'}') {
            return Ok(Json::Object(members));
        }
        loop {
            self.space();
            let name = self.string()?;
            self.expect(b':')?;
            members.push((name, self.value(depth + 1)?));
            self.space();
            if !self.accept(b',') {
                self.expect(b'}')?;
                return Ok(Json::Object(members));
            }
        }
    }

    fn array(&mut self, depth: usize) -> Result<Json<'a>, String> {
        let mut elements = Vec::new();
        self.expect(b'[')?;
        self.space();
        if self.accept(b']') {
            return Ok(Json::Array(elements));
        }
        loop {
            elements.push(self.value(depth + 1)?);
            self.space();
            if !self.accept(b',') {
                self.expect(b']')?;
                return Ok(Json::Array(elements));
            }
        }
    }

    fn number(&mut self) -> Result<Json<'a>, String> {
        let start = self.at;
        let digits = |parser: &mut Self| {
            let first = parser.at;
            while matches!(parser.peek(), Some(b'0'..=b'9')) {
                parser.at += 1;
            }
            if parser.at == first { parser.fail("a digit was expected") } else { Ok(()) }
        };
        self.accept(b'-');
        if !self.accept(b'0') {
            digits(self)?;
        }
        if self.accept(b'.') {
            digits(self)?;
        }
        if self.accept(b'e') || self.accept(b'E') {
            let _sign = self.accept(b'+') || self.accept(b'-');
            digits(self)?;
        }
        Ok(Json::Number(&self.text[start..self.at]))
    }

    fn string(&mut self) -> Result<Cow<'a, str>, String> {
        if !self.accept(b'"') {
            return self.fail("a string was expected");
        }
        let mut owned: Option<String> = None;
        loop {
            let start = self.at;
            while !matches!(self.peek(), None | Some(b'"' | b'\\' | 0..0x20)) {
                self.at += 1;
            }
            // Quotes, backslashes and control characters are bytes of their own, and so never inside a character.
            let plain = &self.text[start..self.at];
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(match owned {
                        None => Cow::Borrowed(plain),
                        Some(text) => Cow::Owned(text + plain),
                    });
                }
                Some(b'\\') => {
                    self.at += 1;
                    let character = self.escape()?;
                    let text = owned.get_or_insert_default();
                    text.push_str(plain);
                    text.push(character);
                }
                _ => return self.fail("a string does not end"),
            }
        }
    }

    fn escape(&mut self) -> Result<char, String> {
        let Some(letter) = self.peek() else { return self.fail("a string does not end") };
        self.at += 1;
        Ok(match letter {
            b'"' | b'\\' | b'/' => letter.into(),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let first = self.code_unit()?;
                let mut units = vec![first];
                if (0xd800..0xdc00).contains(&first) && self.accept(b'\\') && self.accept(b'u') {
                    units.push(self.code_unit()?);
                }
                let mut characters = char::decode_utf16(units);
                match (characters.next(), characters.next()) {
                    (Some(Ok(character)), None) => character,
                    _ => return self.fail("half of a surrogate pair"),
                }
            }
            _ => return self.fail("no such escape"),
        })
    }

    fn code_unit(&mut self) -> Result<u16, String> {
        let digits =
            self.text.as_bytes().get(self.at..self.at + 4).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit));
        let Some(unit) = digits.and_then(|digits| u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok())
        else {
            return self.fail("four hexadecimal digits were expected");
        };
        self.at += 4;
        Ok(unit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values() {
        let check = |text: &str, expected: Json| assert_eq!(parse(text), Ok(expected), "{text}");
        check(" null ", Json::Null);
        check("-0.5e+7", Json::Number("-0.5e+7"));
        check(r#""a\u00e4\n\ud834\udd1e€""#, Json::String("aä\n𝄞€".into()));
        check("[]", Json::Array(vec![]));
        let object = vec![
            ("a".into(), Json::Array(vec![Json::Bool(true), Json::Number("1")])),
            ("b".into(), Json::Object(vec![])),
        ];
        check(r#"{"a": [true, 1], "b": {}}"#, Json::Object(object));
    }

    #[test]
    fn what_is_not_json() {
        let deep = "[".repeat(DEPTH_MAX + 2);
        for text in [
            "",
            "nul",
            "01",
            "1.",
            "-",
            "[1,]",
            "{\"a\"}",
            "{a:1}",
            "\"\n\"",
            "\"\\x\"",
            "\"\\ud800\"",
            "\"",
            "1 2",
            &deep,
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert!(parse(&format!("{}1{}", "[".repeat(400), "]".repeat(400))).is_ok());
    }
}
