// An async-openai client: the text of a stream, its finish reason, and the error that ended it.
use std::{env, error::Error};

use async_openai::{
    Client,
    config::OpenAIConfig,
    types::chat::{ChatCompletionRequestUserMessageArgs, CreateChatCompletionRequestArgs},
};
use futures::StreamExt;
use serde_json::{Value, json};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let config = OpenAIConfig::new()
        .with_api_base(env::var("BASE_URL")?)
        .with_api_key(env::var("API_KEY")?);
    let client = Client::with_config(config);
    let question = ChatCompletionRequestUserMessageArgs::default()
        .content("Hello!")
        .build()?;
    let request = CreateChatCompletionRequestArgs::default()
        .model(env::var("MODEL")?)
        .messages([question.into()])
        .build()?;
    let mut stream = client.chat().create_stream(request).await?;
    let (mut text, mut finish_reason, mut error) = (String::new(), Value::Null, Value::Null);
    while let Some(event) = stream.next().await {
        match event {
            Ok(chunk) => {
                for choice in chunk.choices {
                    text += choice.delta.content.as_deref().unwrap_or_default();
                    if let Some(reason) = choice.finish_reason {
                        finish_reason = json!(reason);
                    }
                }
            }
            Err(failure) => {
                error = json!(failure.to_string());
                break;
            }
        }
    }
    println!("{}", json!({"text": text, "finish_reason": finish_reason, "error": error}));
    Ok(())
}
