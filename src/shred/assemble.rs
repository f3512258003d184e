//! Columns into Arrow arrays. Values move; only booleans, enumerations' names and binary offsets are converted.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, LargeBinaryArray, ListArray, MapArray, PrimitiveArray,
    StringArray, StructArray, new_null_array,
};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::compute::cast;
use arrow::datatypes::{
    ArrowNativeType, ArrowPrimitiveType, DataType, Decimal128Type, Float32Type, Float64Type, Int32Type, Int64Type,
    TimestampMicrosecondType,
};
use arrow::error::ArrowError;

use super::columns::{Columns, List, Primitive, replace_with_room};
use super::enums::Enumeration;
use super::marks::pack;
use super::plan::{ColumnRef, Output, Plan};
use super::text::Text;
use super::well_known::NO_DATE;

impl<T: Copy + Default + ArrowNativeType> Primitive<T> {
    /// The values of `rows` rows and their nulls; starts anew.
    pub(super) fn take(&mut self, rows: usize, parent: Option<&NullBuffer>) -> (ScalarBuffer<T>, Option<NullBuffer>) {
        self.values.resize(rows, T::default());
        let values = replace_with_room(&mut self.values);
        (values.into(), self.present.take_nulls(rows, self.nullable, parent))
    }
}

impl<N: Copy + Default + ArrowNativeType> Primitive<N> {
    /// The array of `rows` rows; starts anew. A type that Iceberg widened the column to since gets what narrower
    /// fields write.
    pub(super) fn take_array<T: ArrowPrimitiveType<Native = N>>(
        &mut self,
        rows: usize,
        parent: Option<&NullBuffer>,
        data_type: &DataType,
    ) -> Result<ArrayRef, ArrowError> {
        let (values, nulls) = self.take(rows, parent);
        if PrimitiveArray::<T>::is_compatible(data_type) {
            let array = PrimitiveArray::<T>::try_new(values, nulls)?;
            return Ok(Arc::new(array.with_data_type(data_type.clone())));
        }
        cast(&PrimitiveArray::<T>::try_new(values, nulls)?, data_type)
    }
}

impl Text {
    /// The strings (or bytes) of `rows` rows; starts anew.
    pub(super) fn take(
        &mut self,
        rows: usize,
        parent: Option<&NullBuffer>,
        data_type: &DataType,
    ) -> Result<ArrayRef, ArrowError> {
        let nulls = self.lengths.nulls(rows, self.nullable, parent);
        let (starts, data) = self.take_parts(rows);
        let (offsets, data) = (offsets(starts), Buffer::from_vec(data));
        if self.utf8 {
            // SAFETY: `check_utf8` has seen every byte and every boundary of a row that is kept (`Shredder::block`), and the
            // last offset is the sum of all lengths, which is the data's.
            return Ok(Arc::new(unsafe { StringArray::new_unchecked(offsets, data, nulls) }));
        }
        Ok(match data_type {
            DataType::LargeBinary => {
                let offsets: Vec<i64> = offsets.iter().copied().map(i64::from).collect();
                // SAFETY: as they ascended before.
                let offsets = unsafe { OffsetBuffer::new_unchecked(offsets.into()) };
                Arc::new(LargeBinaryArray::try_new(offsets, data, nulls)?)
            }
            _ => Arc::new(BinaryArray::try_new(offsets, data, nulls)?),
        })
    }
}

/// What the columns say about where rows start.
fn offsets(starts: Vec<i32>) -> OffsetBuffer<i32> {
    // SAFETY: these are sums of lengths, none of them below zero, that stay below 2^31 (`Columns::fits`): they ascend.
    unsafe { OffsetBuffer::new_unchecked(starts.into()) }
}

impl List {
    /// Where the elements of `rows` rows start and the last ones end, and how many there are; starts anew.
    pub(super) fn take(&mut self, rows: usize) -> (OffsetBuffer<i32>, usize) {
        let (starts, elements) = self.take_parts(rows);
        (offsets(starts), elements)
    }
}

impl Columns {
    /// The array of an output, `rows` rows long, null at least where its parent is; the columns start anew.
    pub(super) fn take(
        &mut self,
        plan: &Plan,
        output: &Output,
        rows: usize,
        parent: Option<&NullBuffer>,
    ) -> Result<ArrayRef, ArrowError> {
        match output {
            Output::Values { column, data_type } => self.take_values(*column, data_type, rows, parent),
            Output::EnumName { column, enumeration } => {
                let (numbers, nulls) = self.i32s[*column as usize].take(rows, parent);
                Ok(Arc::new(names(&plan.enums[*enumeration as usize], &numbers, nulls)?))
            }
            Output::Struct { column, fields, children } => {
                let structure = &mut self.structs[*column as usize];
                let nulls = structure.present.take_nulls(rows, structure.nullable, None);
                let arrays = children
                    .iter()
                    .map(|child| self.take(plan, child, rows, nulls.as_ref()))
                    .collect::<Result<Vec<_>, _>>()?;
                Ok(Arc::new(StructArray::try_new_with_length(fields.clone(), arrays, nulls, rows)?))
            }
            Output::List { list, element, values } => {
                let (offsets, elements) = self.lists[*list as usize].take(rows);
                let values = self.take(plan, values, elements, None)?;
                Ok(Arc::new(ListArray::try_new(element.clone(), offsets, values, parent.cloned())?))
            }
            Output::Map { list, entries, key, value } => {
                let (offsets, elements) = self.lists[*list as usize].take(rows);
                let arrays = vec![self.take(plan, key, elements, None)?, self.take(plan, value, elements, None)?];
                let DataType::Struct(fields) = entries.data_type() else {
                    return Err(ArrowError::SchemaError("a map's entries are not a struct".into()));
                };
                let structs = StructArray::try_new_with_length(fields.clone(), arrays, None, elements)?;
                Ok(Arc::new(MapArray::try_new(entries.clone(), offsets, structs, parent.cloned(), false)?))
            }
            Output::Present => Ok(Arc::new(BooleanArray::new(BooleanBuffer::new_set(rows), parent.cloned()))),
            Output::Null { data_type } => Ok(new_null_array(data_type, rows)),
        }
    }

    fn take_values(
        &mut self,
        column: ColumnRef,
        data_type: &DataType,
        rows: usize,
        parent: Option<&NullBuffer>,
    ) -> Result<ArrayRef, ArrowError> {
        Ok(match column {
            ColumnRef::Bool(index) => {
                let (values, nulls) = self.bools[index as usize].take(rows, parent);
                Arc::new(BooleanArray::new(pack(&values), nulls))
            }
            ColumnRef::I32(index) if *data_type == DataType::Date32 => {
                let (values, nulls) = self.i32s[index as usize].take(rows, parent);
                let dates = BooleanBuffer::collect_bool(rows, |row| values[row] != NO_DATE);
                let nulls = NullBuffer::union(nulls.as_ref(), Some(&NullBuffer::new(dates)));
                Arc::new(Date32Array::try_new(values, nulls.filter(|nulls| nulls.null_count() > 0))?)
            }
            ColumnRef::I32(index) => self.i32s[index as usize].take_array::<Int32Type>(rows, parent, data_type)?,
            ColumnRef::I64(index) if matches!(data_type, DataType::Timestamp(..)) => {
                self.i64s[index as usize].take_array::<TimestampMicrosecondType>(rows, parent, data_type)?
            }
            ColumnRef::I64(index) => self.i64s[index as usize].take_array::<Int64Type>(rows, parent, data_type)?,
            ColumnRef::I128(index) => {
                self.i128s[index as usize].take_array::<Decimal128Type>(rows, parent, data_type)?
            }
            ColumnRef::F32(index) => self.f32s[index as usize].take_array::<Float32Type>(rows, parent, data_type)?,
            ColumnRef::F64(index) => self.f64s[index as usize].take_array::<Float64Type>(rows, parent, data_type)?,
            ColumnRef::Text(index) => self.texts[index as usize].take(rows, parent, data_type)?,
            ColumnRef::Struct(_) | ColumnRef::List(_) => {
                return Err(ArrowError::SchemaError("a struct or a list is no column of values".into()));
            }
        })
    }
}

/// The names of an enumeration's numbers; the digits of those that have none.
fn names(enumeration: &Enumeration, numbers: &[i32], nulls: Option<NullBuffer>) -> Result<StringArray, ArrowError> {
    let (starts, data) = enumeration.texts(numbers, nulls.as_ref());
    i32::try_from(data.len()).map_err(|_| ArrowError::OffsetOverflowError(data.len()))?;
    // SAFETY: the data is names and digits one behind the other, and the offsets, which ascend and end below 2^31, lie
    // where one ends and the next starts.
    Ok(unsafe {
        let offsets = OffsetBuffer::new_unchecked(starts.into());
        StringArray::new_unchecked(offsets, Buffer::from_vec(data), nulls)
    })
}
