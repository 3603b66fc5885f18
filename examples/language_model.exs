# Generates tokens with a model of the families Llama, Qwen2 and Qwen3:
#
#     mix run examples/language_model.exs FOLDER --prompt 1,2,3
#
# FOLDER is as Hugging Face has them, dense, or quantized as mlx-lm writes them. Without one
# the model is small and random. Tokens are numbers; making text of them is for a tokenizer.
#
# Options: --prompt, --max-tokens (64), --temperature (0.0), --top-p, --seed, and --bits, which
# quantizes the matrices of a dense model.

Code.require_file("decoder.exs", __DIR__)
Code.require_file("language_model/random_weights.exs", __DIR__)

defmodule Rates do
  def print(_event, took, metadata, _config) do
    microseconds = System.convert_time_unit(took.time_to_first_token, :native, :microsecond)

    IO.puts("""

    device: #{Mlx.Device.default()}
    prompt: #{metadata.prompt_tokens} tokens, the first one after #{div(microseconds, 1000)} ms
    tokens: #{took.tokens}, #{Float.round(took.tokens_per_second, 1)} per second\
    """)
  end
end

Nx.default_backend(Mlx.Backend)

{opts, folders} =
  OptionParser.parse!(System.argv(),
    strict: [
      prompt: :string,
      max_tokens: :integer,
      temperature: :float,
      top_p: :float,
      seed: :integer,
      bits: :integer
    ]
  )

small = %{
  "model_type" => "qwen3",
  "hidden_size" => 128,
  "num_hidden_layers" => 4,
  "intermediate_size" => 320,
  "num_attention_heads" => 4,
  "num_key_value_heads" => 2,
  "head_dim" => 32,
  "vocab_size" => 1000,
  "rms_norm_eps" => 1.0e-6,
  "rope_theta" => 1_000_000,
  "max_position_embeddings" => 4096,
  "tie_word_embeddings" => true
}

{config, params} =
  case folders do
    [] -> {Decoder.config(small), RandomWeights.make(small, 1)}
    [folder] -> Decoder.read(folder)
  end

params = if bits = opts[:bits], do: Decoder.quantize(params, bits: bits), else: params
params = Decoder.fuse(params)
prompt = opts |> Keyword.get(:prompt, "1,2,3,4,5") |> String.split(",")
seed = Keyword.get(opts, :seed, 0)

generation =
  opts
  |> Keyword.take([:temperature, :top_p])
  |> Keyword.merge(max_tokens: opts[:max_tokens] || 64, key: Nx.Random.key(seed))

:telemetry.attach("rates", [:mlx, :generation, :stop], &Rates.print/4, nil)

config
|> Decoder.generator(params)
|> Mlx.Generation.stream(Enum.map(prompt, &String.to_integer/1), generation)
|> Enum.each(&IO.write("#{&1.id} "))

:telemetry.detach("rates")
