# Finds the sentences that are closest to a question, with a serving of Bumblebee's:
#
#     MIX_ENV=test mix run examples/serving.exs FOLDER "a question" …
#
# FOLDER is that of a sentence embedding model of BERT's family with a `vocab.txt`, such as
# all-MiniLM-L6-v2. Without one the model is small and random, and so is what it finds. The
# sentences are those of data/. Bumblebee is a package of the tests, if MLX_DEPS has it.

if not Code.ensure_loaded?(Bumblebee) do
  Mix.raise("Bumblebee is not among the packages: guides/bumblebee.md says what it needs")
end

Code.require_file("word_piece.exs", __DIR__)

Nx.default_backend(Mlx.Backend)

defmodule Search do
  @sentences Path.expand("../data/sentences.json.gz", __DIR__)

  def sentences do
    for row <- @sentences |> File.read!() |> :zlib.gunzip() |> JSON.decode!(), do: row["text"]
  end

  def model([folder | _]) do
    {:ok, info} = Bumblebee.load_model({:local, folder}, backend: Mlx.Backend)
    {info, WordPiece.load(folder)}
  end

  def model([]) do
    spec =
      Bumblebee.configure(Bumblebee.Text.Bert,
        architecture: :base,
        vocab_size: 192,
        hidden_size: 64,
        num_blocks: 2,
        num_attention_heads: 4,
        intermediate_size: 128
      )

    model = Bumblebee.build_model(spec)
    {init, _predict} = Axon.build(model, seed: 1)
    params = init.(spec.__struct__.input_template(spec), Axon.ModelState.empty())
    {%{model: model, params: params, spec: spec}, letters()}
  end

  # Of single letters.
  defp letters do
    signs = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    letters = for letter <- ?!..?~, sign <- [<<letter>>, "##" <> <<letter>>], do: sign
    WordPiece.new(signs ++ letters)
  end

  def serving({info, tokenizer}) do
    Bumblebee.Text.text_embedding(info, tokenizer,
      output_attribute: :hidden_state,
      output_pool: :mean_pooling,
      embedding_processor: :l2_norm,
      compile: [batch_size: 8, sequence_length: [16, 64]],
      defn_options: [compiler: Mlx.Compiler]
    )
  end

  def embed(text), do: Nx.Serving.batched_run(__MODULE__, text).embedding

  @doc """
  The vectors of texts, which as many processes ask for, and which are gathered into batches.
  """
  def index(texts) do
    texts
    |> Task.async_stream(&embed/1, max_concurrency: length(texts), timeout: :infinity)
    |> Enum.map(fn {:ok, embedding} -> embedding end)
    |> Nx.stack()
    |> Nx.backend_transfer(Mlx.Backend)
  end

  @doc """
  The closest ones and their cosines. The vectors are of length 1.
  """
  def closest(index, texts, question, count) do
    {cosines, rows} = index |> Nx.dot(embed(question)) |> Nx.top_k(k: count)

    for {cosine, row} <- Enum.zip(Nx.to_list(cosines), Nx.to_list(rows)),
        do: {cosine, Enum.at(texts, row)}
  end
end

{folders, questions} = Enum.split_with(System.argv(), &File.dir?/1)

questions =
  if questions == [],
    do: ["a delayed train", "advice from a parent", "marrying for money"],
    else: questions

serving = folders |> Search.model() |> Search.serving()
options = [serving: serving, name: Search, batch_size: 8, batch_timeout: 10]
{:ok, supervisor} = Supervisor.start_link([{Nx.Serving, options}], strategy: :one_for_one)

sentences = Search.sentences()
{microseconds, index} = :timer.tc(fn -> Search.index(sentences) end)

IO.puts(
  "#{length(sentences)} sentences on the #{Mlx.Device.default()} in #{div(microseconds, 1000)} ms"
)

for question <- questions do
  IO.puts("\n#{question}")

  for {cosine, text} <- Search.closest(index, sentences, question, 2) do
    IO.puts("  #{:erlang.float_to_binary(cosine, decimals: 2)}  #{String.slice(text, 0, 90)}")
  end
end

Supervisor.stop(supervisor)
