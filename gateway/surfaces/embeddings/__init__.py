"""Surface of OpenAI's embeddings: `POST /v1/embeddings`.

Modules, in the order in which data flows:

    embeddings_handler  decode, call, render
    embeddings_api      routes, credential header, errors
    decode              the request
    render              the answer
    float_text          float32 as decimal numbers
"""
