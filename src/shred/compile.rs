//! A mapping compiled into a plan.

mod table;

use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef, Fields};

use super::columns::{Columns, List, Oneof, Primitive, Struct};
use super::enums::Enumeration;
use super::json;
use super::plan::{ColumnRef, Default, Error, Field, NONE, Op, Output, Plan, Rest, Root};
use super::text::Text;
use super::wire;
use crate::schema::mapping::{Column, Leaf, Mapping, Shape, Unit};
use crate::schema::model::{Cardinality, EnumId, Field as ProtoField, Kind, MessageId, Pool, Presence};
use table::{field, item};

impl Plan {
    /// The plan, and its columns without rows.
    pub fn compile(mapping: &Mapping) -> Result<(Plan, Columns), Error> {
        let plan = Plan {
            root: Root::Message(0),
            nodes: Vec::new(),
            enums: Vec::new(),
            json: json::Types::default(),
            enum_columns: Vec::new(),
            text_paths: Vec::new(),
            outputs: Vec::new(),
        };
        let mut compiler = Compiler { pool: &mapping.pool, plan, columns: Columns::default(), enums: Vec::new() };
        if mapping.arrow.fields().len() < mapping.columns.len() {
            return Err(mismatch("", "the Arrow schema lacks columns"));
        }
        let fields: Fields = mapping.arrow.fields()[..mapping.columns.len()].to_vec().into();
        if let [column] = mapping.columns.as_slice()
            && column.number == 0
            && let Some((root, output)) = compiler.single(mapping, column, &fields[0])?
        {
            compiler.plan.root = root;
            compiler.plan.outputs = vec![output];
        } else {
            let (node, outputs) = compiler.message(mapping.message, &mapping.columns, &fields, 0, "")?;
            compiler.plan.root = Root::Message(node);
            compiler.plan.outputs = outputs;
        }
        let Compiler { mut plan, mut columns, .. } = compiler;
        for node in &mut plan.nodes {
            for field in node.fields.iter_mut().chain(&mut node.entries) {
                field.slot = columns.slot(field.value_column());
                // Which come once, or are merged.
                if field.value_op().is_leaf_message() || field.content.is_leaf_message() {
                    columns.mark(field.value_column());
                }
            }
            node.required.iter().for_each(|(_, column)| columns.mark(*column));
            node.rest = Rest::new(node);
        }
        if let Root::Leaf(field) = &mut plan.root {
            field.slot = columns.slot(field.value_column());
        }
        columns
            .texts
            .iter_mut()
            .filter(|text| text.expansion > 1)
            .for_each(|text| text.expansion = plan.json.expansion);
        columns.find_slots();
        Ok((plan, columns))
    }
}

fn mismatch(path: &str, what: impl Into<String>) -> Error {
    Error::Mismatch { path: path.to_owned(), what: what.into() }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

struct Compiler<'a> {
    pool: &'a Pool,
    plan: Plan,
    columns: Columns,
    /// What the plan's enumerations are of; none for a oneof's members.
    enums: Vec<Option<EnumId>>,
}

/// A value's op (with what a group holds, and a wrapper's inner one), column, enumeration or node, and array.
struct Value {
    op: Op,
    content: Op,
    inner: Op,
    column: u32,
    node: u32,
    output: Output,
}

impl Compiler<'_> {
    /// A topic whose message is one column.
    fn single(
        &mut self,
        mapping: &Mapping,
        column: &Column,
        arrow: &FieldRef,
    ) -> Result<Option<(Root, Output)>, Error> {
        Ok(match &column.shape {
            Shape::Struct(shape) if shape.message == mapping.message => {
                let DataType::Struct(fields) = arrow.data_type() else {
                    return Err(mismatch(&column.name, "a struct was expected"));
                };
                let index = push(&mut self.columns.structs, Struct::new(0, true));
                let (node, children) = self.message(shape.message, &shape.columns, fields, 0, "")?;
                Some((Root::Struct(index, node), Output::Struct { column: index, fields: fields.clone(), children }))
            }
            Shape::Leaf(leaf) if leaf.message() == Some(mapping.message) => {
                let value = self.leaf(*leaf, arrow.data_type(), 0, true, &column.name)?;
                let field = field(0, &value, value.op, 0);
                Some((Root::Leaf(Box::new(field)), value.output))
            }
            _ => None,
        })
    }

    fn message(
        &mut self,
        message: MessageId,
        columns: &[Column],
        arrow: &Fields,
        space: u32,
        path: &str,
    ) -> Result<(u32, Vec<Output>), Error> {
        let definition = self.pool.message(message);
        if arrow.len() != columns.len() {
            return Err(mismatch(path, format!("{} Arrow fields for {} columns", arrow.len(), columns.len())));
        }
        let oneofs = self.columns.oneofs.len();
        if oneofs + definition.oneofs.len() >= NONE as usize {
            return Err(Error::Unsupported {
                path: path.to_owned(),
                what: "a row with more than 65,534 oneofs".into(),
            });
        }
        self.columns.oneofs.extend(definition.oneofs.iter().map(|_| Oneof::new(space)));
        let mut fields = Vec::new();
        let mut outputs = Vec::new();
        let mut required = Vec::new();
        for (column, arrow) in columns.iter().zip(arrow) {
            let here = join(path, &column.name);
            let source = definition.field(column.number);
            let (Some(source), false) = (source, column.shape == Shape::Leaf(Leaf::Retired)) else {
                outputs.push(match column.shape {
                    Shape::Leaf(Leaf::Present) => Output::Present,
                    Shape::Leaf(Leaf::Case(id, oneof)) if id == message => {
                        let names = Enumeration::of_members(definition, oneof as usize);
                        self.case(oneofs + oneof as usize, names, arrow.data_type(), space, &here)?
                    }
                    _ => Output::Null { data_type: arrow.data_type().clone() },
                });
                continue;
            };
            let (mut ways, output) = self.field(source, column, arrow.data_type(), space, &here)?;
            for field in &mut ways {
                if let Some(oneof) = source.oneof {
                    field.oneof = (oneofs + oneof) as u16;
                    field.op = Op::Member;
                }
            }
            if source.cardinality == Cardinality::Singular(Presence::Required) {
                required.push((source.number, ways[0].value_column()));
            }
            let name: Arc<str> = column.name.as_str().into();
            fields.extend(ways.into_iter().enumerate().map(|(way, field)| (way, field, name.clone())));
            outputs.push(output);
        }
        for source in definition.fields.iter().filter(|source| source.oneof.is_some()) {
            if let Some(oneof) = source.oneof
                && !columns.iter().any(|column| column.number == source.number)
            {
                let mut field = self.skipped(source, &join(path, &source.name))?;
                field.oneof = (oneofs + oneof) as u16;
                fields.push((0, field, source.name.as_str().into()));
            }
        }
        // Writers emit fields by number; the second ways to write a field stand apart, behind the end.
        fields.sort_by_key(|(way, field, _)| (*way, field.number));
        if definition.message_set {
            // Behind them all: their numbers are types, the item's is a field's.
            fields.push((1, item(), "".into()));
        }
        let node = self.node(fields, required, path)?;
        if definition.message_set {
            let node = &mut self.plan.nodes[node as usize];
            let items = node.fields.iter().zip(0..).filter(|(field, _)| !matches!(field.op, Op::End | Op::Item));
            node.items = Some(items.map(|(field, index)| (field.number, index)).collect());
        }
        Ok((node, outputs))
    }

    /// The column of names that says which member of a oneof is set.
    fn case(
        &mut self,
        oneof: usize,
        names: Enumeration,
        arrow: &DataType,
        space: u32,
        path: &str,
    ) -> Result<Output, Error> {
        if *arrow != DataType::Utf8 {
            return Err(mismatch(path, format!("a column of type {arrow}")));
        }
        let column = push(&mut self.columns.i32s, Primitive::new(space, true));
        self.enums.push(None);
        let enumeration = push(&mut self.plan.enums, names);
        self.columns.oneofs[oneof].case = column;
        self.plan.enum_columns.push((column, enumeration));
        Ok(Output::EnumName { column, enumeration })
    }

    /// A member of a oneof that no column is wanted of: set, it clears the others.
    fn skipped(&mut self, source: &ProtoField, path: &str) -> Result<Field, Error> {
        let (op, inner, node) = match source.kind {
            Kind::Enum(id) if self.pool.enumeration(id).closed => {
                (Op::SkipVarint, Op::EnumClosed, self.enumeration(id))
            }
            Kind::Enum(_) => (Op::SkipVarint, Op::End, 0),
            Kind::Message(_) => (Op::SkipLength, Op::End, 0),
            Kind::Group(_) => (Op::SkipGroup, Op::End, 0),
            kind => (scalar(kind, path)?.skip(), Op::End, 0),
        };
        let value = Value { op, content: op, inner, column: 0, node, output: Output::Present };
        Ok(Field { op: Op::Member, ..field(source.number, &value, op, 0) })
    }

    fn field(
        &mut self,
        source: &ProtoField,
        column: &Column,
        arrow: &DataType,
        space: u32,
        path: &str,
    ) -> Result<(Vec<Field>, Output), Error> {
        match (source.cardinality, &column.shape) {
            (Cardinality::Singular(presence), shape @ (Shape::Leaf(_) | Shape::Struct(_))) => {
                let value = self.value(source.kind, shape, arrow, space, presence != Presence::Implicit, path)?;
                Ok((vec![field(source.number, &value, value.op, 0)], value.output))
            }
            (Cardinality::Repeated, Shape::List(element)) => {
                let (DataType::List(element_field), shape) = (arrow, element.as_ref()) else {
                    return Err(mismatch(path, format!("a list was expected, not {arrow}")));
                };
                let list = push(&mut self.columns.lists, List::new(space));
                let value = self.value(source.kind, shape, element_field.data_type(), list + 1, false, path)?;
                let one_by_one = field(source.number, &value, Op::Repeated, list);
                let packable = !matches!(value.op.wire(), wire::LENGTH | wire::START_GROUP);
                let mut ways = vec![one_by_one];
                if packable {
                    let packed = field(source.number, &value, Op::Packed, list);
                    ways.insert(usize::from(!source.packed), packed);
                }
                let output = Output::List { list, element: element_field.clone(), values: Box::new(value.output) };
                Ok((ways, output))
            }
            (Cardinality::Map { key: key_kind }, Shape::Map { key, value }) => {
                let DataType::Map(entries, _) = arrow else {
                    return Err(mismatch(path, format!("a map was expected, not {arrow}")));
                };
                let DataType::Struct(entry) = entries.data_type() else {
                    return Err(mismatch(path, "a map's entries are not a struct"));
                };
                let [key_field, value_field] = &entry[..] else {
                    return Err(mismatch(path, "a map's entries have not two fields"));
                };
                let list = push(&mut self.columns.lists, List::new(space));
                let key_shape = Shape::Leaf(*key);
                let key = self.value(key_kind, &key_shape, key_field.data_type(), list + 1, false, path)?;
                let value = self.value(source.kind, value, value_field.data_type(), list + 1, false, path)?;
                let default = match value.op {
                    Op::Message if !self.plan.nodes[value.node as usize].required.is_empty() => {
                        Default::Incomplete(value.column)
                    }
                    Op::Date => Default::Date(value.column),
                    Op::Json => Default::Json(value.column),
                    _ => Default::Plain,
                };
                let key_entry = field(1, &key, key.op, 0);
                let key_column = key_entry.value_column();
                let fields = vec![(0, key_entry, "key".into()), (0, field(2, &value, value.op, 0), "value".into())];
                let node = self.node(fields, Vec::new(), path)?;
                self.plan.nodes[node as usize].default = default;
                self.plan.nodes[node as usize].key = Some(key_column);
                let map = Field { node, ..field(source.number, &key, Op::Map, list) };
                let output = Output::Map {
                    list,
                    entries: entries.clone(),
                    key: Box::new(key.output),
                    value: Box::new(value.output),
                };
                Ok((vec![map], output))
            }
            _ => Err(mismatch(path, "one is repeated, the other is not")),
        }
    }

    fn value(
        &mut self,
        kind: Kind,
        shape: &Shape,
        arrow: &DataType,
        space: u32,
        nullable: bool,
        path: &str,
    ) -> Result<Value, Error> {
        match (kind, shape) {
            (Kind::Group(id), shape) => {
                let value = self.value(Kind::Message(id), shape, arrow, space, nullable, path)?;
                Ok(Value { op: Op::Group, ..value })
            }
            (Kind::Message(id), Shape::Struct(shape)) if id == shape.message => {
                let DataType::Struct(fields) = arrow else {
                    return Err(mismatch(path, format!("a struct was expected, not {arrow}")));
                };
                let column = push(&mut self.columns.structs, Struct::new(space, nullable));
                let (node, children) = self.message(id, &shape.columns, fields, space, path)?;
                let output = Output::Struct { column, fields: fields.clone(), children };
                Ok(Value { op: Op::Message, content: Op::Message, inner: Op::End, column, node, output })
            }
            (Kind::Message(id), Shape::Leaf(leaf)) if leaf.message() == Some(id) => {
                self.leaf(*leaf, arrow, space, nullable, path)
            }
            (Kind::Enum(id), Shape::Leaf(leaf @ (Leaf::EnumName(of) | Leaf::EnumNumber(of)))) if id == *of => {
                self.leaf(*leaf, arrow, space, nullable, path)
            }
            (kind, Shape::Leaf(leaf @ (Leaf::Scalar(of) | Leaf::UnsignedAsLong(of)))) if kind == *of => {
                self.leaf(*leaf, arrow, space, nullable, path)
            }
            _ => Err(mismatch(path, "its type is another one")),
        }
    }

    fn leaf(&mut self, leaf: Leaf, arrow: &DataType, space: u32, nullable: bool, path: &str) -> Result<Value, Error> {
        let (op, inner) = match leaf {
            Leaf::Scalar(kind) => (scalar(kind, path)?, Op::End),
            Leaf::UnsignedAsLong(Kind::Uint64) => (Op::Uint64Long, Op::End),
            Leaf::UnsignedAsLong(Kind::Fixed64) => (Op::Fixed64Long, Op::End),
            Leaf::EnumName(id) | Leaf::EnumNumber(id) => {
                (if self.pool.enumeration(id).closed { Op::EnumClosed } else { Op::EnumOpen }, Op::End)
            }
            Leaf::Timestamp(_) | Leaf::TimestampLong(_, Unit::Micros) => (Op::Timestamp, Op::End),
            Leaf::TimestampLong(_, Unit::Millis) => (Op::Timestamp, Op::Millis),
            Leaf::Duration(_) => (Op::Duration, Op::End),
            Leaf::DurationMillis(_) => (Op::Duration, Op::Millis),
            Leaf::Date(_) => (Op::Date, Op::End),
            Leaf::Wrapper(_, kind) => (Op::Wrapper, scalar(kind, path)?),
            Leaf::WrapperAsLong(_) => (Op::Wrapper, Op::Uint64Long),
            Leaf::Json(_) => (Op::Json, Op::End),
            Leaf::UnsignedAsLong(_) | Leaf::Present | Leaf::Case(..) | Leaf::Retired => {
                return Err(mismatch(path, "no field fills such a column"));
            }
        };
        // An element that is not a valid date is the only null that a list or a map can hold.
        let nullable = nullable || op == Op::Date;
        let mut value = Value { op, content: op, inner, column: 0, node: 0, output: Output::Present };
        let column = field(0, &value, op, 0).value_column();
        value.column = match column {
            ColumnRef::Bool(_) => push(&mut self.columns.bools, Primitive::new(space, nullable)),
            ColumnRef::I32(_) => push(&mut self.columns.i32s, Primitive::new(space, nullable)),
            ColumnRef::I64(_) => push(&mut self.columns.i64s, Primitive::new(space, nullable)),
            ColumnRef::I128(_) => push(&mut self.columns.i128s, Primitive::new(space, nullable)),
            ColumnRef::F32(_) => push(&mut self.columns.f32s, Primitive::new(space, nullable)),
            ColumnRef::F64(_) => push(&mut self.columns.f64s, Primitive::new(space, nullable)),
            ColumnRef::Text(_) => {
                self.plan.text_paths.push(path.to_owned());
                let utf8 = op == Op::String || inner == Op::String || op == Op::Json;
                let mut text = Text::new(space, nullable, utf8);
                if let Leaf::Json(id) = leaf {
                    value.node = self.plan.json.add(self.pool, id);
                    text.expansion = self.plan.json.expansion;
                }
                push(&mut self.columns.texts, text)
            }
            ColumnRef::Struct(_) | ColumnRef::List(_) => {
                return Err(mismatch(path, "a leaf is neither struct nor list"));
            }
        };
        let column = field(0, &value, op, 0).value_column();
        value.output = Output::Values { column, data_type: arrow.clone() };
        if let Leaf::EnumName(id) | Leaf::EnumNumber(id) = leaf {
            value.node = self.enumeration(id);
            if let Leaf::EnumName(_) = leaf {
                self.plan.enum_columns.push((value.column, value.node));
                value.output = Output::EnumName { column: value.column, enumeration: value.node };
            }
        }
        if !fits(column, leaf, arrow) {
            return Err(mismatch(path, format!("a column of type {arrow}")));
        }
        Ok(value)
    }

    fn enumeration(&mut self, id: EnumId) -> u32 {
        if let Some(index) = self.enums.iter().position(|known| *known == Some(id)) {
            return index as u32;
        }
        self.enums.push(Some(id));
        push(&mut self.plan.enums, Enumeration::new(self.pool.enumeration(id)))
    }
}

fn scalar(kind: Kind, path: &str) -> Result<Op, Error> {
    Ok(match kind {
        Kind::Bool => Op::Bool,
        Kind::Int32 => Op::Int32,
        Kind::Sint32 => Op::Sint32,
        Kind::Sfixed32 => Op::Sfixed32,
        Kind::Int64 => Op::Int64,
        Kind::Sint64 => Op::Sint64,
        Kind::Sfixed64 => Op::Sfixed64,
        Kind::Uint32 => Op::Uint32,
        Kind::Fixed32 => Op::Fixed32,
        Kind::Uint64 => Op::Uint64,
        Kind::Fixed64 => Op::Fixed64,
        Kind::Float => Op::Float,
        Kind::Double => Op::Double,
        Kind::String => Op::String,
        Kind::Bytes => Op::Bytes,
        Kind::Enum(_) | Kind::Message(_) | Kind::Group(_) => return Err(mismatch(path, "its type is no scalar")),
    })
}

/// Whether values of a column can be had as an Arrow type: its own, or one that Iceberg may have widened it to.
fn fits(column: ColumnRef, leaf: Leaf, arrow: &DataType) -> bool {
    use arrow::datatypes::TimeUnit;
    match leaf {
        Leaf::EnumName(_) | Leaf::Json(_) => *arrow == DataType::Utf8,
        Leaf::Timestamp(_) => matches!(arrow, DataType::Timestamp(TimeUnit::Microsecond, _)),
        Leaf::Date(_) => *arrow == DataType::Date32,
        Leaf::Scalar(Kind::String) | Leaf::Wrapper(_, Kind::String) => *arrow == DataType::Utf8,
        _ => match column {
            ColumnRef::Bool(_) => *arrow == DataType::Boolean,
            ColumnRef::I32(_) => matches!(arrow, DataType::Int32 | DataType::Int64),
            ColumnRef::I64(_) => *arrow == DataType::Int64,
            ColumnRef::I128(_) => matches!(arrow, DataType::Decimal128(precision, 0) if *precision >= 20),
            ColumnRef::F32(_) => matches!(arrow, DataType::Float32 | DataType::Float64),
            ColumnRef::F64(_) => *arrow == DataType::Float64,
            ColumnRef::Text(_) => matches!(arrow, DataType::Binary | DataType::LargeBinary),
            ColumnRef::Struct(_) | ColumnRef::List(_) => false,
        },
    }
}

fn push<T>(columns: &mut Vec<T>, column: T) -> u32 {
    columns.push(column);
    (columns.len() - 1) as u32
}
