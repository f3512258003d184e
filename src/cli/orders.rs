//! The demo's messages: orders of a shop (`proto/shop/v1/order.proto`), encoded by hand so that the demo needs no
//! generated code. The same seed gives the same orders.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Protobuf's wire format, as far as an order needs it.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn raw_varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn varint(mut self, number: u32, value: u64) -> Self {
        self.raw_varint(u64::from(number) << 3);
        self.raw_varint(value);
        self
    }

    fn double(mut self, number: u32, value: f64) -> Self {
        self.raw_varint(u64::from(number) << 3 | 1);
        self.0.extend(value.to_le_bytes());
        self
    }

    fn bytes(mut self, number: u32, value: &[u8]) -> Self {
        self.raw_varint(u64::from(number) << 3 | 2);
        self.raw_varint(value.len() as u64);
        self.0.extend(value);
        self
    }

    fn string(self, number: u32, value: &str) -> Self {
        self.bytes(number, value.as_bytes())
    }

    fn message(self, number: u32, value: Message) -> Self {
        self.bytes(number, &value.0)
    }
}

const SKUS: [(&str, i64); 8] = [
    ("ice-axe", 8990),
    ("crampons", 12950),
    ("rope-60m", 19900),
    ("thermos", 2495),
    ("mittens", 3950),
    ("headlamp", 4490),
    ("bivouac", 24900),
    ("compass", 1890),
];
const CITIES: [(&str, &str); 6] =
    [("Tromsø", "NO"), ("Ilulissat", "GL"), ("Höfn", "IS"), ("Zermatt", "CH"), ("Juneau", "US"), ("Ushuaia", "AR")];
const NAMES: [&str; 6] =
    ["Ada Lovelace", "Fridtjof Nansen", "Junko Tabei", "Reinhold Messner", "Louise Boyd", "Matthew Henson"];
const CARDS: [&str; 3] = ["visa", "mastercard", "amex"];

/// An endless row of orders.
pub struct Orders {
    random: StdRng,
    number: u64,
    started_ms: i64,
}

pub struct Order {
    pub key: String,
    pub value: Vec<u8>,
    pub timestamp_ms: i64,
}

impl Orders {
    /// `started_ms`: when the first order was made; they come a few milliseconds apart.
    pub fn new(seed: u64, started_ms: i64) -> Self {
        Orders { random: StdRng::seed_from_u64(seed), number: 0, started_ms }
    }
}

fn money(cents: i64) -> Message {
    Message::default().string(1, "EUR").varint(2, (cents / 100) as u64).varint(3, (cents % 100 * 10_000_000) as u64)
}

fn timestamp(milliseconds: i64) -> Message {
    Message::default().varint(1, (milliseconds / 1000) as u64).varint(2, (milliseconds % 1000 * 1_000_000) as u64)
}

impl Iterator for Orders {
    type Item = Order;

    fn next(&mut self) -> Option<Order> {
        let random = &mut self.random;
        self.number += 1;
        let timestamp_ms = self.started_ms + (self.number as i64) * 7 + random.random_range(0..7);
        let key = format!("ord-{:08}", self.number);
        let mut order = Message::default()
            .string(1, &key)
            .message(2, timestamp(timestamp_ms))
            .varint(3, random.random_range(1..=5));
        if random.random_bool(0.9) {
            let (city, country) = CITIES[random.random_range(0..CITIES.len())];
            let address = Message::default()
                .string(1, &format!("{} Glacier Road", random.random_range(1..400)))
                .string(2, city)
                .string(3, &format!("{:05}", random.random_range(0..100_000)))
                .string(4, country);
            let mut customer = Message::default()
                .varint(1, random.random_range(1..5000))
                .string(2, NAMES[random.random_range(0..NAMES.len())]);
            if random.random_bool(0.5) {
                customer = customer.string(3, &format!("customer{}@example.org", random.random_range(1..5000)));
            }
            order = order.message(4, customer.message(4, address));
        }
        let mut total = 0;
        for _ in 0..random.random_range(1..=3) {
            let (sku, cents) = SKUS[random.random_range(0..SKUS.len())];
            let quantity = random.random_range(1..=3);
            total += cents * quantity;
            let line = Message::default().string(1, sku).varint(2, quantity as u64).message(3, money(cents));
            order = order.message(5, line);
        }
        order = order.message(6, money(total));
        order = match random.random_range(0..4) {
            0 => order,
            1 => order.string(9, &format!("gift-{}", random.random_range(1000..9999))),
            _ => order.message(
                7,
                Message::default()
                    .string(1, CARDS[random.random_range(0..CARDS.len())])
                    .string(2, &format!("{:04}", random.random_range(0..10_000))),
            ),
        };
        order = order.message(10, Message::default().string(1, "channel").string(2, "web"));
        if random.random_bool(0.2) {
            order = order.double(12, f64::from(random.random_range(1..30)));
        }
        let order = order.varint(14, random.random_range(1..4));
        Some(Order { key, value: order.0, timestamp_ms })
    }
}
