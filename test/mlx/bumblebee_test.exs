defmodule Mlx.BumblebeeTest do
  use ExUnit.Case, async: true

  alias Mlx.{BumblebeeModels, Oracle}

  @moduletag :bumblebee
  @moduletag :capture_log
  @moduletag timeout: 600_000

  # Bumblebee may be missing, where packages come from a folder.
  @compile {:no_warn_undefined, [Axon, Bumblebee, Bumblebee.Text, Bumblebee.Text.Generation]}

  defmodule Tokens do
    @moduledoc false
    # A tokenizer of Bumblebee's that knows the tokens of these sentences, so that the NIF of the
    # package Tokenizers need not be built. It fills up with zeros.
    defstruct [:table, :length, :return_token_type_ids]

    def config(tokenizer, opts), do: struct!(tokenizer, opts)

    def apply(%{table: table, length: length}, texts) do
      tokens = Enum.map(texts, &Map.fetch!(table, &1))
      fill = fn list -> Enum.take(list ++ List.duplicate(0, length), length) end
      ones = Enum.map(tokens, fn list -> List.duplicate(1, min(Kernel.length(list), length)) end)
      tensor = &Nx.tensor(Enum.map(&1, fill), type: :u32)
      %{"input_ids" => tensor.(tokens), "attention_mask" => tensor.(ones)}
    end
  end

  # Of convolutions and norms over small channels, whose sums cancel.
  @coarse 64

  setup do
    # What is the same each time is easier to look into.
    :rand.seed(:exsss, {1, 2, 3})
    :ok
  end

  for {name, architectures} <- [
        distilbert: [:base, :for_sequence_classification, :for_masked_language_modeling],
        bert: [:base, :for_token_classification, :for_masked_language_modeling],
        llama: [:base, :for_causal_language_modeling],
        qwen3: [:base, :for_causal_language_modeling],
        vit: [:base, :for_image_classification],
        whisper: [:base, :for_conditional_generation],
        clip_text: [:base]
      ],
      architecture <- architectures do
    test "#{name} #{architecture}" do
      name = unquote(name)
      spec = BumblebeeModels.spec(name, architecture: unquote(architecture))
      assert_runs(spec, BumblebeeModels.inputs(name))
    end
  end

  test "positions that are scaled" do
    for strategy <- BumblebeeModels.scalings() do
      opts = [rotary_embedding_scaling_strategy: strategy, max_positions: 6, num_blocks: 1]
      assert_runs(BumblebeeModels.spec(:llama, opts), BumblebeeModels.inputs(:llama))
    end
  end

  describe "Stable Diffusion:" do
    test "the UNet" do
      assert_runs(BumblebeeModels.spec(:unet), BumblebeeModels.inputs(:unet), @coarse)
    end

    test "the VAE's halves" do
      for {architecture, shape} <- [encoder: {1, 4, 4, 3}, decoder: {1, 2, 2, 4}] do
        spec = BumblebeeModels.spec(:vae, architecture: architecture)
        assert_runs(spec, %{"sample" => BumblebeeModels.normal(shape)}, @coarse)
      end
    end
  end

  test "tokens are generated" do
    spec = BumblebeeModels.spec(:llama, architecture: :for_causal_language_modeling)
    model = Bumblebee.build_model(spec)
    inputs = BumblebeeModels.inputs(:llama)
    state = BumblebeeModels.state(model, inputs)

    config =
      Bumblebee.configure(Bumblebee.Text.GenerationConfig, max_new_tokens: 6, pad_token_id: 0)

    generate = Bumblebee.Text.Generation.build_generate(model, spec, config)
    inputs = Map.put(inputs, "seed", Nx.tensor([0, 0], backend: Nx.BinaryBackend))
    run = fn data, inputs -> generate.(%{state | data: data}, inputs).token_ids end
    assert {2, 6} == Nx.shape(run.(state.data, inputs))
    Oracle.assert_same(run, [state.data, inputs])
  end

  describe "all-MiniLM-L6-v2" do
    @describetag :minilm

    # What sentence-transformers gives: data/README.md
    test "embeds sentences in a serving as sentence-transformers does" do
      rows = "data/sentences.json.gz" |> File.read!() |> :zlib.gunzip() |> Jason.decode!()
      tokenizer = %Tokens{table: Map.new(rows, &{&1["text"], &1["tokens"]})}
      serving = embedding(System.fetch_env!("MLX_MINILM"), tokenizer)
      start_supervised!({Nx.Serving, name: __MODULE__, serving: serving, batch_size: 8})

      embeddings = Nx.Serving.batched_run(__MODULE__, Enum.map(rows, & &1["text"]))
      assert length(embeddings) == 20

      for {%{embedding: got}, row} <- Enum.zip(embeddings, rows) do
        assert Nx.shape(got) == {384}
        assert cosine(Nx.to_flat_list(got), row["embedding"]) >= 0.9999, row["text"]
      end

      # The sentences differ, and so do what they are embedded as.
      [%{embedding: first}, %{embedding: second} | _] = embeddings
      assert cosine(Nx.to_flat_list(first), Nx.to_flat_list(second)) < 0.5
    end

    defp embedding(folder, tokenizer) do
      {:ok, model} = Bumblebee.load_model({:local, folder}, backend: {Mlx.Backend, device: :cpu})

      Bumblebee.Text.text_embedding(model, tokenizer,
        output_attribute: :hidden_state,
        output_pool: :mean_pooling,
        embedding_processor: :l2_norm,
        compile: [batch_size: 8, sequence_length: 64],
        defn_options: [compiler: Mlx.Compiler, device: :cpu]
      )
    end

    defp cosine(a, b) do
      dot = fn a, b -> Enum.zip_reduce(a, b, 0.0, &(&1 * &2 + &3)) end
      dot.(a, b) / :math.sqrt(dot.(a, a) * dot.(b, b))
    end
  end

  ## Running

  defp assert_runs(spec, inputs, ulps \\ 16) do
    model = Bumblebee.build_model(spec)
    state = BumblebeeModels.state(model, inputs)
    run = BumblebeeModels.runner(model, state)
    # The largest numbers of a result count: the layers before it have added up such ones.
    scale = BumblebeeModels.scale(run.(state.data, inputs))
    Oracle.assert_same(run, [state.data, inputs], ulps: ulps, scale: scale, signed_zero: false)
    assert_without_others(run, state.data, inputs)
  end

  # Nothing that computes may be given to the other backend on the way.
  defp assert_without_others(run, parameters, inputs) do
    Oracle.run(
      :eager,
      fn parameters, inputs ->
        :erlang.trace_pattern({Nx.BinaryBackend, :_, :_}, true, [])
        :erlang.trace(self(), true, [:call])
        output = run.(parameters, inputs)
        :erlang.trace(self(), false, [:call])
        output
      end,
      [parameters, inputs]
    )

    assert called() -- [:init, :from_binary, :constant] == []
  end

  defp called do
    receive do
      {:trace, _pid, :call, {Nx.BinaryBackend, name, _args}} -> [name | called()]
    after
      0 -> []
    end
  end
end
