//! `calve query`: SQL over the project's tables, printed.

use std::io::{BufWriter, Write};

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use arrow::util::pretty::pretty_format_batches;
use futures::StreamExt;

use super::{Exit, Global, Output};
use crate::query::{Engine, one_line};

/// Of `memory_limit`, for what sorts, joins and groups hold; the rest is for reading.
const MEMORY_PERCENT: u64 = 70;

/// A table is printed in blocks of this many rows, each as wide as its own values.
const TABLE_ROWS: usize = 10_000;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Tables are named namespace.table, those of another catalog catalog.namespace.table.

Examples:
  calve query 'SELECT status, count(*) FROM bronze.orders GROUP BY status'
  calve query --format csv 'SELECT order_id, _kafka.offset FROM bronze.orders LIMIT 10'
  calve query \"SELECT * FROM bronze.orders WHERE _kafka.timestamp > now() - interval '1 hour'\"")]
pub struct Args {
    /// One SELECT; `-` reads it from stdin
    pub sql: String,
    /// How rows are printed [default: table, or json with --output json]
    #[arg(long, value_enum)]
    pub format: Option<Format>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Aligned columns, for people
    Table,
    /// One JSON object a line
    Json,
    /// Comma-separated, with a header; nested values as text
    Csv,
}

pub async fn run(args: Args, global: &Global) -> anyhow::Result<Exit> {
    let project = global.project()?;
    let sql = match args.sql.as_str() {
        "-" => std::io::read_to_string(std::io::stdin())?,
        sql => sql.to_owned(),
    };
    let format = args.format.unwrap_or(match global.output {
        Output::Text => Format::Table,
        Output::Json => Format::Json,
    });
    let engine = Engine::of_project(&project, MEMORY_PERCENT).map_err(failed)?;
    let frame = engine.query(&sql).await.map_err(failed)?;
    let schema: SchemaRef = std::sync::Arc::new(frame.schema().as_arrow().clone());
    let mut batches = frame.execute_stream().await.map_err(failed)?;
    let mut printer = Printer::new(format, schema, BufWriter::new(std::io::stdout().lock()));
    while let Some(batch) = batches.next().await {
        printer.print(batch.map_err(failed)?)?;
    }
    printer.finish()?;
    Ok(Exit::Done)
}

fn failed(error: datafusion::common::DataFusionError) -> anyhow::Error {
    anyhow::anyhow!("the query failed: {}", one_line(&error))
}

/// Writes a result as it comes; never holds more than a block of it.
pub struct Printer<W: Write> {
    out: Out<W>,
    schema: SchemaRef,
    /// Rows of the block at hand.
    block: Vec<RecordBatch>,
    printed: bool,
}

enum Out<W: Write> {
    Table(W),
    Json(arrow::json::LineDelimitedWriter<W>),
    Csv(Box<arrow::csv::Writer<W>>),
}

impl<W: Write> Printer<W> {
    pub fn new(format: Format, schema: SchemaRef, to: W) -> Self {
        let out = match format {
            Format::Table => Out::Table(to),
            Format::Json => {
                let explicit = arrow::json::WriterBuilder::new().with_explicit_nulls(true);
                Out::Json(explicit.build::<_, arrow::json::writer::LineDelimited>(to))
            }
            Format::Csv => Out::Csv(Box::new(arrow::csv::WriterBuilder::new().with_header(true).build(to))),
        };
        Printer { out, schema, block: vec![], printed: false }
    }

    pub fn print(&mut self, batch: RecordBatch) -> anyhow::Result<()> {
        match &mut self.out {
            Out::Table(_) => {
                self.block.push(batch);
                if self.block.iter().map(RecordBatch::num_rows).sum::<usize>() >= TABLE_ROWS {
                    self.print_block()?;
                }
            }
            Out::Json(writer) => writer.write(&batch)?,
            Out::Csv(writer) => {
                writer.write(&flat(&batch)?)?;
                self.printed = true;
            }
        }
        Ok(())
    }

    pub fn finish(mut self) -> anyhow::Result<()> {
        match &mut self.out {
            Out::Table(_) if !self.block.is_empty() || !self.printed => self.print_block()?,
            Out::Table(_) => {}
            Out::Json(writer) => writer.finish()?,
            // The header is part of an empty result too.
            Out::Csv(writer) if !self.printed => writer.write(&flat(&RecordBatch::new_empty(self.schema.clone()))?)?,
            Out::Csv(_) => {}
        }
        match self.out {
            Out::Table(mut writer) => writer.flush()?,
            Out::Json(writer) => writer.into_inner().flush()?,
            Out::Csv(writer) => writer.into_inner().flush()?,
        }
        Ok(())
    }

    fn print_block(&mut self) -> anyhow::Result<()> {
        if self.block.is_empty() {
            self.block.push(RecordBatch::new_empty(self.schema.clone()));
        }
        if let Out::Table(writer) = &mut self.out {
            writeln!(writer, "{}", pretty_format_batches(&self.block)?)?;
        }
        self.block.clear();
        self.printed = true;
        Ok(())
    }
}

/// Nested columns as text: CSV has no form for them.
fn flat(batch: &RecordBatch) -> anyhow::Result<RecordBatch> {
    let mut fields = Vec::with_capacity(batch.num_columns());
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(batch.num_columns());
    for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
        if field.data_type().is_nested() || matches!(field.data_type(), DataType::Binary | DataType::LargeBinary) {
            let options = FormatOptions::default();
            let format = ArrayFormatter::try_new(column, &options)?;
            let text = (0..column.len()).map(|row| column.is_valid(row).then(|| format.value(row).to_string()));
            columns.push(std::sync::Arc::new(text.collect::<StringArray>()));
            fields.push(Field::new(field.name(), DataType::Utf8, true));
        } else {
            columns.push(column.clone());
            fields.push(field.as_ref().clone());
        }
    }
    let schema = std::sync::Arc::new(Schema::new(fields));
    let rows = arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(schema, columns, &rows)?)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, ListArray};
    use arrow::datatypes::Int64Type;

    use super::*;

    fn printed(format: Format, batches: &[RecordBatch]) -> String {
        let schema = batches[0].schema();
        let mut text = Vec::new();
        let mut printer = Printer::new(format, schema, &mut text);
        for batch in batches.iter().filter(|batch| batch.num_rows() > 0) {
            printer.print(batch.clone()).unwrap();
        }
        printer.finish().unwrap();
        String::from_utf8(text).unwrap()
    }

    fn batch() -> RecordBatch {
        let list: ListArray = ListArray::from_iter_primitive::<Int64Type, _, _>([Some(vec![Some(1), Some(2)]), None]);
        RecordBatch::try_from_iter([
            ("id", Arc::new(Int64Array::from(vec![1, 2])) as ArrayRef),
            ("list", Arc::new(list) as ArrayRef),
        ])
        .unwrap()
    }

    #[test]
    fn every_format_prints_rows_and_an_empty_result() {
        assert_eq!(printed(Format::Csv, &[batch()]), "id,list\n1,\"[1, 2]\"\n2,\n");
        assert_eq!(printed(Format::Json, &[batch()]), "{\"id\":1,\"list\":[1,2]}\n{\"id\":2,\"list\":null}\n");
        assert!(printed(Format::Table, &[batch()]).contains("| 1  | [1, 2] |"));
        let empty = [batch().slice(0, 0)];
        assert_eq!(printed(Format::Csv, &empty), "id,list\n");
        assert_eq!(printed(Format::Json, &empty), "");
        assert!(printed(Format::Table, &empty).contains("| id | list |"));
    }
}
