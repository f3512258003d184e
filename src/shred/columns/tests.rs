//! Columns against rows kept as they are: what a failed record leaves behind, room that runs out, blocks cut back.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::{Columns, List, Primitive, Struct};
use crate::shred::bytes::CHUNK;
use crate::shred::plan::ColumnRef;
use crate::shred::text::Text;
use crate::shred::unchecked::Slots;

/// One row of the table below.
#[derive(Clone, Debug, Default, PartialEq)]
struct Row {
    number: Option<i64>,
    text: Option<Vec<u8>>,
    present: bool,
    /// Each element has a number, a text, and numbers of its own.
    elements: Vec<(i32, Option<Vec<u8>>, Vec<f64>)>,
}

fn columns() -> Columns {
    let mut columns = Columns::default();
    columns.i64s.push(Primitive::new(0, true));
    columns.texts.push(Text::new(0, true, true));
    columns.structs.push(Struct::new(0, true));
    columns.lists.push(List::new(0));
    columns.i32s.push(Primitive::new(1, false));
    columns.texts.push(Text::new(1, false, true));
    columns.lists.push(List::new(1));
    columns.f64s.push(Primitive::new(2, false));
    columns
}

fn random_row(rng: &mut StdRng) -> Row {
    fn text(rng: &mut StdRng) -> Option<Vec<u8>> {
        let length = if rng.random_bool(0.1) { rng.random_range(0..300) } else { rng.random_range(0..40) };
        rng.random_bool(0.7).then(|| (0..length).map(|_| rng.random_range(b'a'..=b'z')).collect())
    }
    Row {
        number: rng.random_bool(0.7).then(|| rng.random()),
        text: text(rng),
        present: rng.random(),
        elements: (0..rng.random_range(0..4))
            .map(|_| (rng.random(), text(rng), (0..rng.random_range(0..3)).map(|_| rng.random()).collect()))
            .collect(),
    }
}

/// Writes a row as the interpreter does, and stops after so many steps.
fn write(columns: &mut Columns, row: usize, values: &Row, mut steps: usize) {
    let mut step = || {
        steps = steps.saturating_sub(1);
        steps > 0
    };
    let put = |columns: &mut Columns, text: u32, row: usize, value: &[u8]| {
        let buffer = [value, &[b'!'; CHUNK]].concat();
        let slot = columns.slot(ColumnRef::Text(text));
        assert!(Slots::new(&mut columns.slots).put_text(slot, row, &buffer, 0, value.len()));
        assert!(!Slots::new(&mut columns.slots).put_text(slot, row, &buffer, 0, value.len()), "a row has one value");
    };
    if let Some(number) = values.number {
        let slot = columns.slot(ColumnRef::I64(0));
        Slots::new(&mut columns.slots).put(slot, row, !number);
        Slots::new(&mut columns.slots).put(slot, row, number);
    }
    if step()
        && let Some(text) = &values.text
    {
        put(columns, 0, row, text);
    }
    if step() && values.present {
        assert!(columns.touch(0, row) && !columns.touch(0, row));
    }
    for (number, text, inner) in &values.elements {
        if !step() {
            return;
        }
        let element = columns.element(0, row);
        columns.i32s[0].put(element, *number);
        if let Some(text) = text {
            put(columns, 1, element, text);
        }
        for number in inner {
            let element = columns.element(1, element);
            columns.f64s[0].put(element, *number);
        }
    }
}

fn read(columns: &mut Columns, rows: usize) -> Vec<Row> {
    let numbers = columns.i64s[0].values[..rows].to_vec();
    let present: Vec<[bool; 3]> = (0..rows)
        .map(|row| {
            [ColumnRef::I64(0), ColumnRef::Text(0), ColumnRef::Struct(0)].map(|column| columns.touched(column, row))
        })
        .collect();
    let (starts, elements) = columns.lists[0].take_parts(rows);
    let (inner_starts, inner_elements) = columns.lists[1].take_parts(elements);
    let element_present: Vec<bool> = (0..elements).map(|row| columns.texts[1].lengths.has(row)).collect();
    let texts = [(0, rows), (1, elements)].map(|(text, rows)| columns.texts[text].take_parts(rows));
    let text = |column: usize, row: usize| {
        let (starts, data) = &texts[column];
        data[starts[row] as usize..starts[row + 1] as usize].to_vec()
    };
    assert_eq!(inner_starts[elements] as usize, inner_elements);
    (0..rows)
        .map(|row| Row {
            number: present[row][0].then_some(numbers[row]),
            text: present[row][1].then(|| text(0, row)),
            present: present[row][2],
            elements: (starts[row] as usize..starts[row + 1] as usize)
                .map(|element| {
                    let inner = inner_starts[element] as usize..inner_starts[element + 1] as usize;
                    let text = element_present[element].then(|| text(1, element));
                    (columns.i32s[0].values[element], text, columns.f64s[0].values[inner].to_vec())
                })
                .collect(),
        })
        .collect()
}

#[test]
fn rows_come_out_as_they_were_put_whatever_failed_between_them() {
    let mut rng = StdRng::seed_from_u64(11);
    for _ in 0..if cfg!(miri) { 3 } else { 200 } {
        let mut columns = columns();
        let mut kept: Vec<Row> = Vec::new();
        for _ in 0..rng.random_range(1..5) {
            let block = rng.random_range(1..90);
            let before = kept.len();
            columns.make_room(before + block);
            for _ in 0..block {
                let row = random_row(&mut rng);
                if rng.random_bool(0.2) {
                    write(&mut columns, kept.len(), &row, rng.random_range(0..8));
                    columns.truncate(kept.len(), kept.len() + 1);
                } else {
                    write(&mut columns, kept.len(), &row, usize::MAX);
                    kept.push(row);
                }
            }
            if rng.random_bool(0.3) {
                let rows = rng.random_range(before..=kept.len());
                columns.truncate(rows, kept.len());
                kept.truncate(rows);
            } else {
                assert_eq!(columns.check_utf8(kept.len()), Ok(()));
            }
        }
        assert_eq!(read(&mut columns, kept.len()), kept);
    }
}
