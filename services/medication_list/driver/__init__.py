"""The batch driver: Kafka's log through Faust, one fetch at a time, each partition from the offset that the store holds.

It does not interpret the records. The processor gives `pump` a `Process`; the store is its `Positions`.
"""
