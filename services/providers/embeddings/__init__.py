"""Embeddings at providers: dialects of requests for vectors, and of their answers.

Modules, in the order in which data flows:

    base          interface of a dialect: `encode`, a decoder, `error`, all without I/O
    dimensions    dimensions that a model can give its vectors
    extra_fields  fields unknown to the contract that are sent on
    texts         rules of all dialects whose APIs take texts alone
    openai        OpenAI's `/embeddings`, which most other providers also speak
    cohere        Cohere's `/v2/embed`
    google        Google's `batchEmbedContents`
    vertex        Vertex AI's `predict`
    bedrock       Amazon Bedrock's models, each in its form
    vectors       vectors of an answer, checked

A provider that speaks an existing dialect needs no code: a channel, and a row of
`capabilities.toml` with the limits of its models.
"""
