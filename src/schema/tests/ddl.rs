//! Tables in other engines' SQL.

use super::super::ddl::{Dialect, create_table};
use super::super::partition;
use super::{OPTIONS, check, create, proto3};

#[track_caller]
fn check_ddl(dialect: Dialect, partition_by: &[&str], expected: &str) {
    let pool = proto3(
        "message M {
           // The order's id; 'quoted' \\\\ here.
           uint64 id = 1;
           repeated Item items = 2;
           map<string, double> prices = 3;
         }
         message Item { string sku = 1; float weight = 2; google.protobuf.Timestamp at = 3; bytes b = 4; int32 n = 5; bool ok = 6; }",
    );
    let mapping = create(&pool, "t.M", &OPTIONS).unwrap();
    let fields: Vec<String> = partition_by.iter().map(|field| field.to_string()).collect();
    let spec = partition::parse(&fields, &mapping.iceberg).unwrap();
    check(&create_table(dialect, "bronze.orders", &mapping.iceberg, &spec), expected);
}

#[test]
fn trino() {
    check_ddl(
        Dialect::Trino,
        &["day(_kafka.timestamp)", "bucket[16](id)"],
        r#"
        CREATE TABLE "bronze"."orders" (
          "id" DECIMAL(20, 0) COMMENT 'The order''s id; ''quoted'' \\ here.',
          "items" ARRAY(ROW("sku" VARCHAR, "weight" REAL, "at" TIMESTAMP(6) WITH TIME ZONE, "b" VARBINARY, "n" INTEGER, "ok" BOOLEAN)),
          "prices" MAP(VARCHAR, DOUBLE),
          "_kafka" ROW("topic" VARCHAR, "partition" INTEGER, "offset" BIGINT, "timestamp" TIMESTAMP(6) WITH TIME ZONE, "timestamp_type" VARCHAR, "key" VARBINARY, "headers" ARRAY(ROW("key" VARCHAR, "value" VARBINARY)), "schema_id" INTEGER) COMMENT 'where the record lay in the Kafka log',
          "_raw" VARBINARY COMMENT 'the record''s original bytes, where the other columns do not hold all of it; null otherwise'
        )
        WITH (
          format = 'PARQUET',
          partitioning = ARRAY['day("_kafka.timestamp")', 'bucket(id, 16)']
        );
        "#,
    );
}

#[test]
fn snowflake() {
    check_ddl(
        Dialect::Snowflake,
        &[],
        r#"
        CREATE ICEBERG TABLE "bronze"."orders" (
          "id" DECIMAL(20, 0) COMMENT 'The order''s id; ''quoted'' \\\\ here.',
          "items" ARRAY(OBJECT("sku" STRING, "weight" FLOAT, "at" TIMESTAMP_LTZ(6), "b" BINARY, "n" INT, "ok" BOOLEAN)),
          "prices" MAP(STRING, DOUBLE),
          "_kafka" OBJECT("topic" STRING, "partition" INT, "offset" LONG, "timestamp" TIMESTAMP_LTZ(6), "timestamp_type" STRING, "key" BINARY, "headers" ARRAY(OBJECT("key" STRING, "value" BINARY)), "schema_id" INT) COMMENT 'where the record lay in the Kafka log',
          "_raw" BINARY COMMENT 'the record''s original bytes, where the other columns do not hold all of it; null otherwise'
        )
        CATALOG = 'SNOWFLAKE'
        EXTERNAL_VOLUME = '<volume>'
        BASE_LOCATION = '<folder>';
        "#,
    );
}

#[test]
fn spark() {
    check_ddl(
        Dialect::Spark,
        &["day(_kafka.timestamp)", "bucket[16](id)", "truncate[2](id)"],
        r#"
        CREATE TABLE `bronze`.`orders` (
          `id` DECIMAL(20, 0) COMMENT 'The order\'s id; \'quoted\' \\\\ here.',
          `items` ARRAY<STRUCT<`sku`: STRING, `weight`: FLOAT, `at`: TIMESTAMP, `b`: BINARY, `n`: INT, `ok`: BOOLEAN>>,
          `prices` MAP<STRING, DOUBLE>,
          `_kafka` STRUCT<`topic`: STRING, `partition`: INT, `offset`: BIGINT, `timestamp`: TIMESTAMP, `timestamp_type`: STRING, `key`: BINARY, `headers`: ARRAY<STRUCT<`key`: STRING, `value`: BINARY>>, `schema_id`: INT> COMMENT 'where the record lay in the Kafka log',
          `_raw` BINARY COMMENT 'the record\'s original bytes, where the other columns do not hold all of it; null otherwise'
        )
        USING iceberg
        PARTITIONED BY (days(`_kafka`.`timestamp`), bucket(16, `id`), truncate(2, `id`));
        "#,
    );
}
