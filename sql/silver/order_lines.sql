/*---
description: One row per line of each state of an order, with what it cost
mode: append
partition_by: [day(event_time)]
trigger: { on_commit: true }
---*/
SELECT
    order_id,
    revision,
    event_time,
    status,
    customer.id AS customer_id,
    customer.address.country AS country,
    line.sku AS sku,
    line.quantity AS quantity,
    line.unit_price.currency AS currency,
    -- Units and billionths of a unit; exact, as money is.
    CAST(CAST(line.unit_price.units AS DECIMAL(20, 9))
       + CAST(line.unit_price.nanos AS DECIMAL(20, 9)) * 0.000000001 AS DECIMAL(28, 9)) AS unit_price,
    line.gift_message IS NOT NULL AS is_gift,
    -- Which record of the topic this comes from.
    _kafka.partition AS kafka_partition,
    _kafka.offset AS kafka_offset
FROM (SELECT *, unnest(lines) AS line FROM bronze.orders)
