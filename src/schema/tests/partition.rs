//! Partition fields: how they are read, named, and refused.

use super::super::partition;
use super::{OPTIONS, check, create, proto3};

#[track_caller]
fn check_fields(fields: &[&str], expected: &str) {
    let pool = proto3(
        "message M {
           int64 id = 1; string name = 2; Customer customer = 3; repeated Item items = 4; double price = 5; bool ok = 6;
           google.protobuf.Timestamp at = 7; uint64 n = 8; string customer_id = 9;
         }
         message Customer { string id = 1; Address address = 2; } message Address { string city = 1; }
         message Item { string sku = 1; }",
    );
    let mapping = create(&pool, "t.M", &OPTIONS).unwrap();
    let fields: Vec<String> = fields.iter().map(|field| field.to_string()).collect();
    let text = match partition::parse(&fields, &mapping.iceberg) {
        Ok(spec) => {
            let line = |field: &iceberg::spec::UnboundPartitionField| {
                let source = mapping.iceberg.name_by_field_id(field.source_id).unwrap();
                format!("{} = {}({source})\n", field.name, field.transform)
            };
            spec.fields().iter().map(line).collect::<String>()
        }
        Err(faults) => faults.iter().map(|fault| format!("{fault}\n")).collect(),
    };
    check(&text, expected);
}

#[test]
fn transforms_and_names() {
    check_fields(
        &[
            "day(_kafka.timestamp)",
            "bucket[16](customer.id)",
            "truncate[8](name)",
            " identity( customer.address.city ) ",
            "ok",
            "hour(at)",
            "bucket[4](n)",
        ],
        "
        _kafka_timestamp_day = day(_kafka.timestamp)
        customer_id_bucket = bucket[16](customer.id)
        name_trunc = truncate[8](name)
        customer_address_city = identity(customer.address.city)
        ok = identity(ok)
        at_hour = hour(at)
        n_bucket = bucket[4](n)
        ",
    );
    check_fields(&["year(at)"], "at_year = year(at)");
    check_fields(&["month(at)"], "at_month = month(at)");
    check_fields(&[], "");
}

#[test]
fn all_faults_at_once() {
    check_fields(
        &[
            "", "day(customer.idd)", "customer", "items.sku", "day(name)", "bucket[16](price)", "bucket[0](id)", "bucket(id)",
            "truncate[x](id)", "truncate[2](price)", "day[3](at)", "week(at)", "day(at", "day(at, id)", "id.x", "day()",
        ],
        "
        partition field \"\": is empty
        partition field \"day(customer.idd)\": there is no column \"customer.idd\"; did you mean customer.id?
        partition field \"customer\": customer is a struct; name one of its leaves; did you mean customer.id?
        partition field \"items.sku\": items.sku lies in a list or map, which no table can be partitioned or sorted by
        partition field \"day(name)\": the transform day does not take name, which is of type string
        partition field \"bucket[16](price)\": the transform bucket[16] does not take price, which is of type double
        partition field \"bucket[0](id)\": bucket needs a number above 0 in brackets: bucket[16](path)
        partition field \"bucket(id)\": bucket needs a number above 0 in brackets: bucket[16](path)
        partition field \"truncate[x](id)\": truncate needs a number above 0 in brackets: truncate[16](path)
        partition field \"truncate[2](price)\": the transform truncate[2] does not take price, which is of type double
        partition field \"day[3](at)\": day takes no number
        partition field \"week(at)\": \"week\" is no transform; there are identity, bucket[N], truncate[N], year, month, day and hour
        partition field \"day(at\": has no closing parenthesis; write transform(path)
        partition field \"day(at, id)\": takes one column; write transform(path), the transform's number in brackets
        partition field \"id.x\": there is no column \"id.x\": id is a leaf; did you mean id?
        partition field \"day()\": takes one column; write transform(path), the transform's number in brackets
        ",
    );
}

#[test]
fn fields_that_say_the_same() {
    check_fields(
        &["day(at)", "hour(at)", "bucket[4](id)", "bucket[8](id)"],
        "
        partition field \"hour(at)\": says the same as the partition field at_day; keep one of them
        partition field \"bucket[8](id)\": says the same as the partition field id_bucket; keep one of them
        ",
    );
}
