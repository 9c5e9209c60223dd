"""Surface of OpenAI's embeddings: `POST /v1/embeddings`.

Modules, in the order in which data flows:

    embeddings_handler  the API and its handler: decode, call, render
    decode              the request
    render              the answer
    float_text          float32 as decimal numbers
"""
