"""Surface of OpenAI's older completions, which continue a text: `POST /v1/completions`.

Modules, in the order in which data flows:

    surface        the surface
    decode         requests
    text_request   a decoded request
    render         answers, whole and streamed
    text_logprobs  log probabilities in this API's form
"""
