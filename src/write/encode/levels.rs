//! Where the values of a batch's leaf columns lie: Parquet's definition and repetition levels.
//!
//! Inside of a list (or of the rows, when there is none) levels are by element, and only the count of ancestors that are
//! there: bits are added up. Each list turns its parent's slots into more, once for all leaves below it.

use std::borrow::Cow;

use arrow::array::{Array, ArrayRef, AsArray, OffsetSizeTrait, UInt64Array};
use arrow::buffer::NullBuffer;
use arrow::compute::take;
use arrow::datatypes::{DataType, Field};
use parquet::errors::{ParquetError, Result};

/// A batch's part of a leaf column.
pub struct Leaf<'a> {
    pub array: &'a ArrayRef,
    /// Which of the array's values are there, if not all.
    pub valid: Option<&'a NullBuffer>,
    pub slots: usize,
    pub def: Levels<'a>,
    /// Below lists only.
    pub rep: Option<&'a [u8]>,
}

/// Definition levels.
#[derive(Clone, Copy)]
pub enum Levels<'a> {
    All(u8),
    Each(&'a [u8]),
}

/// The slots of the elements of a list, or of several lists one in the other.
struct Slots {
    rep: Vec<u8>,
    def: Vec<u8>,
    /// The definition level of slots that have an element; others have a lower one.
    present: u8,
}

/// Where an array's elements lie.
#[derive(Clone, Copy)]
struct Place<'a> {
    list: Option<&'a Slots>,
    rep: u8,
    /// The definition level of elements whose ancestors are all there.
    def: u8,
    /// The definition level of each element, and which are there, when some are not.
    depth: Option<&'a [u8]>,
    valid: Option<&'a NullBuffer>,
}

/// Visits the leaves of a column, in Parquet's order.
pub fn leaves<F: FnMut(Leaf) -> Result<()>>(field: &Field, array: &ArrayRef, visit: &mut F) -> Result<()> {
    walk(field, array, Place { list: None, rep: 0, def: 0, depth: None, valid: None }, visit)
}

fn walk<F: FnMut(Leaf) -> Result<()>>(field: &Field, array: &ArrayRef, place: Place, visit: &mut F) -> Result<()> {
    let mut place = place;
    let (valid, depth);
    if field.is_nullable() {
        valid = NullBuffer::union(place.valid, array.nulls()).filter(|valid| valid.null_count() > 0);
        depth = valid.as_ref().map(|valid| deeper(place.depth, place.def, valid));
        place.def = place.def.checked_add(1).ok_or_else(too_deep)?;
        (place.depth, place.valid) = (depth.as_deref(), valid.as_ref());
    }
    match array.data_type() {
        DataType::Struct(fields) => {
            for (field, column) in fields.iter().zip(array.as_struct().columns()) {
                walk(field, column, place, visit)?;
            }
            Ok(())
        }
        DataType::List(element) => {
            let list = array.as_list::<i32>();
            elements(element, list.values(), list.offsets(), place, visit)
        }
        DataType::LargeList(element) => {
            let list = array.as_list::<i64>();
            elements(element, list.values(), list.offsets(), place, visit)
        }
        DataType::Map(entries, _) => {
            let map = array.as_map();
            let pairs: ArrayRef = std::sync::Arc::new(map.entries().clone());
            elements(entries, &pairs, map.offsets(), place, visit)
        }
        _ => leaf(array, place, visit),
    }
}

fn leaf<F: FnMut(Leaf) -> Result<()>>(array: &ArrayRef, place: Place, visit: &mut F) -> Result<()> {
    let Some(list) = place.list else {
        let def = place.depth.map_or(Levels::All(place.def), Levels::Each);
        return visit(Leaf { array, valid: place.valid, slots: array.len(), def, rep: None });
    };
    let def: Cow<[u8]> = match place.depth {
        None if place.def == list.present => Cow::Borrowed(&list.def),
        None => {
            let below = place.def - list.present;
            list.def.iter().map(|def| def + below * u8::from(*def == list.present)).collect()
        }
        Some(depth) => {
            let mut depth = depth.iter();
            let mut below = |def: &u8| if *def == list.present { depth.next().copied() } else { Some(*def) };
            list.def.iter().map(|def| below(def).unwrap_or(*def)).collect()
        }
    };
    let (slots, rep) = (list.def.len(), Some(list.rep.as_slice()));
    visit(Leaf { array, valid: place.valid, slots, def: Levels::Each(&def), rep })
}

fn elements<O: OffsetSizeTrait, F: FnMut(Leaf) -> Result<()>>(
    field: &Field,
    values: &ArrayRef,
    offsets: &[O],
    place: Place,
    visit: &mut F,
) -> Result<()> {
    let rep = place.rep.checked_add(1).ok_or_else(too_deep)?;
    let present = place.def.checked_add(1).ok_or_else(too_deep)?;
    let slots = slots(offsets, place, rep, present);
    let range = |list: usize| offsets[list].as_usize()..offsets[list + 1].as_usize();
    let lists = offsets.len() - 1;
    let (first, last) = (offsets[0].as_usize(), offsets[lists].as_usize());
    let present_lists = (0..lists).filter(|list| place.valid.is_none_or(|valid| valid.is_valid(*list)));
    let values = match place.valid {
        // A list that is not there may have elements all the same, which are not to be seen.
        Some(_) if present_lists.clone().map(|list| range(list).len()).sum::<usize>() != last - first => {
            let seen: UInt64Array = present_lists.flat_map(range).map(|element| element as u64).collect();
            take(values, &seen, None)?
        }
        _ => values.slice(first, last - first),
    };
    walk(field, &values, Place { list: Some(&slots), rep, def: present, depth: None, valid: None }, visit)
}

fn slots<O: OffsetSizeTrait>(offsets: &[O], place: Place, child_rep: u8, present: u8) -> Slots {
    let lists = offsets.len() - 1;
    let parents = place.list.map_or(lists, |list| list.def.len());
    let room = parents + (offsets[lists] - offsets[0]).as_usize();
    // As if all were elements that are there and not the first of their list; what is otherwise is written over.
    let (mut reps, mut defs, mut count) = (vec![child_rep; room], vec![present; room], 0);
    let mut put = |rep, def, length| {
        (reps[count], defs[count]) = (rep, def);
        count += length;
    };
    let opened = |list: usize| {
        let depth = place.depth.map_or(place.def, |depth| depth[list]);
        let length = (offsets[list + 1] - offsets[list]).as_usize();
        if depth < place.def || length == 0 { (depth, 1) } else { (present, length) }
    };
    match place.list {
        None => (0..lists).map(opened).for_each(|(def, length)| put(0, def, length)),
        Some(outer) => {
            let mut opened = (0..lists).map(opened);
            for (rep, def) in outer.rep.iter().zip(&outer.def) {
                let list = (*def == outer.present).then(|| opened.next().expect("a list for each element outside"));
                let (def, length) = list.unwrap_or((*def, 1));
                put(*rep, def, length);
            }
        }
    }
    reps.truncate(count);
    defs.truncate(count);
    Slots { rep: reps, def: defs, present }
}

/// The levels one further down: one more for every element that is there.
fn deeper(depth: Option<&[u8]>, def: u8, valid: &NullBuffer) -> Vec<u8> {
    let mut levels = match depth {
        Some(depth) => depth.to_vec(),
        None => vec![def; valid.len()],
    };
    let bits = valid.inner().bit_chunks();
    for (levels, bits) in levels.chunks_mut(64).zip(bits.iter_padded()) {
        for (levels, byte) in levels.chunks_mut(8).zip(bits.to_le_bytes()) {
            let spread = SPREAD[byte as usize];
            levels.iter_mut().zip(spread).for_each(|(level, bit)| *level += bit);
        }
    }
    levels
}

/// A byte's bits as bytes.
const SPREAD: [[u8; 8]; 256] = {
    let mut table = [[0; 8]; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut bit = 0;
        while bit < 8 {
            table[byte][bit] = (byte >> bit & 1) as u8;
            bit += 1;
        }
        byte += 1;
    }
    table
};

fn too_deep() -> ParquetError {
    ParquetError::NYI("columns more than 255 levels deep".into())
}
