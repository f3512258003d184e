//! Events and measurements as services write them: most fields set, ids that are unique, words from small sets, clocks
//! that go on. The corpus' generator makes messages to break a decoder, of random shape and random values; what a topic
//! holds is like this.

use rand::Rng;
use rand::rngs::StdRng;

const START_SECONDS: i64 = 1_790_000_000;

#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn raw(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    /// Proto3's writers leave zero out.
    fn varint(&mut self, number: u32, value: u64) {
        if value != 0 {
            self.raw(u64::from(number << 3));
            self.raw(value);
        }
    }

    fn fixed64(&mut self, number: u32, value: u64) {
        self.raw(u64::from(number << 3 | 1));
        self.0.extend(value.to_le_bytes());
    }

    fn fixed32(&mut self, number: u32, value: u32) {
        self.raw(u64::from(number << 3 | 5));
        self.0.extend(value.to_le_bytes());
    }

    fn bytes(&mut self, number: u32, value: impl AsRef<[u8]>) {
        self.raw(u64::from(number << 3 | 2));
        self.raw(value.as_ref().len() as u64);
        self.0.extend_from_slice(value.as_ref());
    }

    fn message(&mut self, number: u32, fill: impl FnOnce(&mut Message)) {
        let mut inner = Message::default();
        fill(&mut inner);
        self.bytes(number, &inner.0);
    }
}

fn pick<T: Copy>(rng: &mut StdRng, among: &[T]) -> T {
    among[rng.random_range(0..among.len())]
}

fn uuid(rng: &mut StdRng) -> String {
    let bits: u128 = rng.random();
    let hex = format!("{bits:032x}");
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

const FIRST: [&str; 12] =
    ["Ada", "Chinua", "Emmy", "Grace", "Hedy", "Ines", "Jörg", "Katherine", "Linus", "Mei", "Noor", "Søren"];
const LAST: [&str; 12] = [
    "Achebe",
    "Adeyemi",
    "Hamilton",
    "Hopper",
    "Ito",
    "Kierkegaard",
    "Lovelace",
    "Müller",
    "Noether",
    "Okafor",
    "Patel",
    "Wu",
];
const COUNTRIES: [&str; 16] =
    ["AT", "AU", "BR", "CA", "CH", "CN", "DE", "ES", "FR", "GB", "IN", "JP", "NG", "SE", "US", "ZA"];
const AGENTS: [&str; 6] = [
    "Mozilla/5.0 (X11; Linux x86_64)",
    "Mozilla/5.0 (Windows NT 10.0)",
    "Mozilla/5.0 (Macintosh; Intel)",
    "shop-ios/8.14.2",
    "shop-android/8.13.0",
    "curl/8.9.1",
];
const SYSTEMS: [&str; 5] = ["Linux", "Windows 11", "macOS 15", "iOS 19", "Android 16"];
const SCREENS: [(u64, u64); 5] = [(1920, 1080), (2560, 1440), (390, 844), (412, 915), (1440, 900)];
const PAGES: [&str; 8] = ["product", "cart", "search", "home", "checkout", "account", "wishlist", "help"];
const LABELS: [(&str, &[&str]); 3] =
    [("channel", &["web", "app", "mail"]), ("experiment", &["a", "b", "control"]), ("zone", &["eu-1", "us-2"])];

/// The n-th `corpus.event.Event`, about 270 bytes.
pub fn event(n: u64, rng: &mut StdRng) -> Vec<u8> {
    let mut event = Message::default();
    event.bytes(1, uuid(rng));
    event.message(2, |time| {
        time.varint(1, (START_SECONDS + n as i64 / 500) as u64);
        time.varint(2, rng.random_range(0..1_000_000) * 1000);
    });
    event.varint(3, rng.random_range(1..4));
    let user: u64 = rng.random_range(0..50_000);
    event.message(4, |message| {
        message.varint(1, 1_000_000 + user * 37);
        message.bytes(2, format!("{} {}", FIRST[user as usize % 12], LAST[(user / 12) as usize % 12]));
        message.bytes(3, COUNTRIES[user as usize % 16]);
        if user % 4 != 0 {
            message.varint(4, 18 + user % 60);
        }
    });
    event.message(5, |device| {
        device.bytes(1, pick(rng, &AGENTS));
        device.bytes(2, pick(rng, &SYSTEMS));
        let (width, height) = pick(rng, &SCREENS);
        device.message(3, |screen| {
            screen.varint(1, width);
            screen.varint(2, height);
        });
    });
    for _ in 0..pick(rng, &[0, 1, 1, 1, 2, 3]) {
        let sku = rng.random_range(0..3000);
        event.message(6, |item| {
            item.bytes(1, format!("SKU-{sku:05}"));
            item.varint(2, pick(rng, &[1, 1, 1, 2, 3]));
            item.fixed64(3, (f64::from(sku % 500) + 0.99).to_bits());
        });
    }
    for (key, values) in LABELS {
        if rng.random_bool(0.6) {
            event.message(7, |entry| {
                entry.bytes(1, key);
                entry.bytes(2, pick(rng, values));
            });
        }
    }
    if rng.random_bool(0.5) {
        event.fixed64(8, rng.random::<f64>().to_bits());
    }
    event.bytes(9, format!("https://shop.example/{}/{}", pick(rng, &PAGES), rng.random_range(1..20_000)));
    event.varint(10, n % 1000);
    match rng.random_range(0..10) {
        0..=5 => event.message(11, |purchase| {
            purchase.bytes(1, format!("O-{:08}", 10_000_000 + n));
            purchase.varint(2, rng.random_range(199..50_000));
        }),
        6 => event.bytes(12, "payment declined"),
        _ => {}
    }
    event.varint(13, u64::from(rng.random_bool(0.02)));
    event.0
}

/// The n-th `corpus.flat.Flat`, about 205 bytes.
pub fn flat(n: u64, rng: &mut StdRng) -> Vec<u8> {
    let mut flat = Message::default();
    let account: u64 = rng.random_range(0..20_000);
    let (first, last) = (FIRST[account as usize % 12], LAST[(account / 12) as usize % 12]);
    let micros = START_SECONDS as u64 * 1_000_000 + n * 2000 + rng.random_range(0..2000);
    flat.bytes(1, uuid(rng));
    flat.varint(2, micros);
    flat.varint(3, pick(rng, &[200, 200, 200, 201, 404, 500]));
    flat.fixed64(4, (f64::from(rng.random_range(100..1_000_000)) / 100.0).to_bits());
    flat.bytes(5, pick(rng, &["EUR", "USD", "GBP", "JPY"]));
    flat.varint(6, u64::from(rng.random_bool(0.9)));
    flat.varint(7, 700_000_000 + account);
    flat.bytes(8, format!("{first} {last}"));
    flat.bytes(9, format!("{}.{account}@mail.example", last.to_lowercase()));
    flat.fixed32(10, (rng.random::<f32>() * 100.0).to_bits());
    flat.varint(11, micros + rng.random_range(0..5_000_000));
    flat.varint(12, rng.random_range(0..200));
    flat.fixed64(13, rng.random());
    flat.bytes(14, rng.random::<[u8; 16]>());
    flat.varint(15, rng.random_range(0..64));
    flat.bytes(16, pick(rng, &["eu-central-1", "us-east-1", "ap-south-1"]));
    flat.varint(17, rng.random_range(1..8));
    if rng.random_bool(0.3) {
        flat.bytes(18, pick(rng, &["left at the door", "call before delivery", "second attempt", "gift"]));
    }
    flat.0
}
