"""Local models: model servers that run as child processes.

Modules, in the order in which data flows:

    local_models     starts, restarts and stops the model servers
    model_server     program of a child process: llama.cpp's HTTP server
    scripted_server  program of a child process: a script in place of a model
"""
