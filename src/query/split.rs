//! Which partition of a scan reads which part of which file.

use iceberg::scan::FileScanTask;

/// No file is cut into pieces smaller than this: a footer read and a seek each should pay.
const PIECE_BYTES_MIN: u64 = 32 * 1024 * 1024;

/// Deals tasks to at most `partitions` groups of about equal bytes, in an order that does not depend on chance.
///
/// A large file is cut into byte ranges; a row group belongs to the range that its first byte lies in. Files with
/// delete files stay whole, because positions count from a file's first row.
pub fn split(tasks: Vec<FileScanTask>, partitions: usize) -> Vec<Vec<FileScanTask>> {
    let partitions = partitions.max(1);
    let total: u64 = tasks.iter().map(|task| task.length).sum();
    let piece = (total / partitions as u64).max(PIECE_BYTES_MIN);
    let mut pieces: Vec<FileScanTask> = tasks.into_iter().flat_map(|task| cut(task, piece)).collect();
    pieces.sort_by(|a, b| {
        b.length.cmp(&a.length).then_with(|| a.data_file_path.cmp(&b.data_file_path)).then(a.start.cmp(&b.start))
    });
    let mut groups: Vec<(u64, Vec<FileScanTask>)> = vec![(0, Vec::new()); partitions.min(pieces.len()).max(1)];
    for task in pieces {
        let lightest = groups.iter_mut().min_by_key(|(bytes, _)| *bytes).expect("there is at least one group");
        lightest.0 += task.length;
        lightest.1.push(task);
    }
    groups.into_iter().map(|(_, tasks)| tasks).collect()
}

fn cut(task: FileScanTask, piece: u64) -> Vec<FileScanTask> {
    if !task.deletes.is_empty() || task.length < 2 * piece {
        return vec![task];
    }
    let end = task.start + task.length;
    (0..task.length.div_ceil(piece))
        .map(|index| {
            let start = task.start + index * piece;
            FileScanTask { start, length: piece.min(end - start), record_count: None, ..task.clone() }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use iceberg::spec::{DataFileFormat, Schema};

    use super::*;

    fn task(path: &str, length: u64) -> FileScanTask {
        FileScanTask::builder()
            .with_file_size_in_bytes(length)
            .with_start(0)
            .with_length(length)
            .with_record_count(Some(1))
            .with_data_file_path(path.to_owned())
            .with_data_file_format(DataFileFormat::Parquet)
            .with_schema(Arc::new(Schema::builder().build().unwrap()))
            .with_project_field_ids(vec![])
            .with_case_sensitive(true)
            .build()
    }

    #[test]
    fn bytes_are_dealt_evenly_and_none_is_lost() {
        let groups = split(vec![task("a", 500 << 20), task("b", 100 << 20), task("c", 1)], 4);
        let bytes: Vec<u64> = groups.iter().map(|group| group.iter().map(|task| task.length).sum()).collect();
        assert_eq!(bytes.iter().sum::<u64>(), (600 << 20) + 1);
        assert!(bytes.iter().max().unwrap() - bytes.iter().min().unwrap() <= 151 << 20, "{bytes:?}");
        let mut of_a: Vec<(u64, u64)> =
            groups.iter().flatten().filter(|t| t.data_file_path == "a").map(|t| (t.start, t.length)).collect();
        of_a.sort();
        assert!(of_a.windows(2).all(|pair| pair[0].0 + pair[0].1 == pair[1].0), "ranges join up: {of_a:?}");
    }

    #[test]
    fn no_files_is_one_empty_partition() {
        assert_eq!(split(vec![], 8), vec![Vec::<FileScanTask>::new()]);
    }
}
