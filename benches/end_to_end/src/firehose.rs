//! A producer that costs next to nothing: batches that were encoded and compressed beforehand, sent as they are, over and
//! over. What is measured beside it has the machine nearly to itself.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, anyhow, ensure};
use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{ApiKey, ProduceRequest, ProduceResponse, RequestHeader, TopicName};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, StrBytes};
use kafka_protocol::records::{
    Compression, NO_PARTITION_LEADER_EPOCH, NO_PRODUCER_EPOCH, NO_PRODUCER_ID, Record, RecordBatchEncoder,
    RecordEncodeOptions, TimestampType,
};

/// The last without compact types.
const VERSION: i16 = 8;

/// Records as a request holds them.
pub struct Batch {
    encoded: Bytes,
    pub records: usize,
    /// Of Protobuf.
    pub bytes: usize,
}

impl Batch {
    pub fn new(values: &[Vec<u8>], compression: Compression) -> Result<Batch> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_millis() as i64;
        let record = |(index, value): (usize, &Vec<u8>)| Record {
            transactional: false,
            control: false,
            delete_horizon: false,
            partition_leader_epoch: NO_PARTITION_LEADER_EPOCH,
            producer_id: NO_PRODUCER_ID,
            producer_epoch: NO_PRODUCER_EPOCH,
            timestamp_type: TimestampType::Creation,
            offset: index as i64,
            // Counted on, for the encoder begins a batch where it is not.
            sequence: index as i32,
            timestamp: now,
            key: None,
            value: Some(Bytes::copy_from_slice(value)),
            headers: Default::default(),
        };
        let records: Vec<Record> = values.iter().enumerate().map(record).collect();
        let mut encoded = BytesMut::new();
        RecordBatchEncoder::encode(&mut encoded, &records, &RecordEncodeOptions { version: 2, compression })?;
        let bytes = values.iter().map(Vec::len).sum();
        Ok(Batch { encoded: encoded.freeze(), records: values.len(), bytes })
    }
}

/// A batch that the broker has.
pub struct Arrived {
    pub partition: i32,
    /// Behind its last record.
    pub next: i64,
    pub due: SystemTime,
}

struct Sent {
    correlation: i32,
    records: usize,
    due: SystemTime,
}

/// A connection to the one broker that leads everything.
pub struct Firehose {
    stream: TcpStream,
    topic: TopicName,
    sent: Sender<Sent>,
    answers: Option<JoinHandle<Result<Vec<Arrived>>>>,
    count: i32,
}

impl Firehose {
    pub fn connect(address: &str, topic: &str) -> Result<Firehose> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        let (sent, waiting) = channel();
        let reading = stream.try_clone()?;
        let answers = Some(std::thread::spawn(move || answers(reading, waiting)));
        let topic = TopicName(StrBytes::from_string(topic.to_owned()));
        Ok(Firehose { stream, topic, sent, answers, count: 0 })
    }

    /// Waits until `due`, and sends; how late it was when all of it was on its way.
    pub fn send(&mut self, partition: i32, batch: &Batch, due: Instant) -> Result<Duration> {
        let data = PartitionProduceData::default().with_index(partition).with_records(Some(batch.encoded.clone()));
        let data = TopicProduceData::default().with_name(self.topic.clone()).with_partition_data(vec![data]);
        let request = ProduceRequest::default().with_acks(1).with_timeout_ms(30_000).with_topic_data(vec![data]);
        let header = RequestHeader::default()
            .with_request_api_key(ApiKey::Produce as i16)
            .with_request_api_version(VERSION)
            .with_correlation_id(self.count);
        let mut frame = BytesMut::from(&[0; 4][..]);
        header.encode(&mut frame, ProduceRequest::header_version(VERSION))?;
        request.encode(&mut frame, VERSION)?;
        let length = (frame.len() - 4) as u32;
        frame[..4].copy_from_slice(&length.to_be_bytes());
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let wall = SystemTime::now() - due.elapsed();
        let sent = Sent { correlation: self.count, records: batch.records, due: wall };
        if self.sent.send(sent).is_err() {
            // The thread has ended: by an error.
            self.arrived()?;
        }
        self.stream.write_all(&frame)?;
        self.count += 1;
        Ok(due.elapsed())
    }

    /// Waits for all answers.
    pub fn end(mut self) -> Result<Vec<Arrived>> {
        self.sent = channel().0;
        self.arrived()
    }

    fn arrived(&mut self) -> Result<Vec<Arrived>> {
        let answers = self.answers.take().context("the broker has refused a batch")?;
        answers.join().map_err(|_| anyhow!("the thread that reads answers has panicked"))?
    }
}

fn answers(mut stream: TcpStream, sent: Receiver<Sent>) -> Result<Vec<Arrived>> {
    let mut arrived = Vec::new();
    for sent in sent {
        let mut length = [0; 4];
        stream.read_exact(&mut length)?;
        let mut answer = vec![0; u32::from_be_bytes(length) as usize];
        stream.read_exact(&mut answer)?;
        let correlation = answer.first_chunk().context("an answer without a number")?;
        ensure!(i32::from_be_bytes(*correlation) == sent.correlation, "answers are out of order");
        let answer = ProduceResponse::decode(&mut Bytes::from(answer).slice(4..), VERSION)?;
        for partition in answer.responses.iter().flat_map(|topic| &topic.partition_responses) {
            ensure!(partition.error_code == 0, "partition {}: error {}", partition.index, partition.error_code);
            let next = partition.base_offset + sent.records as i64;
            arrived.push(Arrived { partition: partition.index, next, due: sent.due });
        }
    }
    Ok(arrived)
}
