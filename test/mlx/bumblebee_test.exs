defmodule Mlx.BumblebeeTest do
  use ExUnit.Case, async: true

  alias Mlx.{BumblebeeModels, Oracle}

  @moduletag :bumblebee
  @moduletag :capture_log
  @moduletag timeout: 600_000

  # Bumblebee may be missing, where packages come from a folder.
  @compile {:no_warn_undefined,
            [Axon, Bumblebee, Bumblebee.Text, Bumblebee.Text.Generation, Mlx.Axon]}

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

  # What assert_without_others/3 is worth.
  test "calls of the other backend are seen" do
    add = fn -> Nx.add(Nx.tensor([1, 2]), 1) end
    assert :add in calls(Nx.BinaryBackend, add)
    assert calls(Mlx.Backend, add) == []
  end

  test "tokens are generated" do
    {[run], args} = BumblebeeModels.generators(:llama, &[&1])
    assert {2, 6} == Nx.shape(apply(run, args))
    Oracle.assert_same(run, args)
  end

  describe "all-MiniLM-L6-v2" do
    @describetag :minilm

    setup do
      # What sentence-transformers gives: data/README.md
      rows = "data/sentences.json.gz" |> File.read!() |> :zlib.gunzip() |> Jason.decode!()

      {:ok, model} =
        Bumblebee.load_model({:local, System.fetch_env!("MLX_MINILM")}, backend: Mlx.Backend)

      %{rows: rows, model: model}
    end

    test "embeds sentences in a serving as sentence-transformers does", %{rows: rows} = context do
      [first, second | _] = embeddings = embed(context.model, rows)
      assert length(embeddings) == 20
      assert_like_reference(embeddings, rows, 0.9999)
      # The sentences differ, and so do what they are embedded as.
      assert cosine(first, second) < 0.5
    end

    test "does so with fused layers, and nearly so in 8 bits", %{rows: rows, model: info} do
      {model, [_ | _]} = Mlx.Axon.rewrite(info.model)
      assert_like_reference(embed(%{info | model: model}, rows), rows, 0.9999)

      {packed, names} = Mlx.Axon.quantize(model, info.params, bits: 8)
      # Six in each block, and the pooler.
      assert length(names) == 6 * 6 + 1
      assert_like_reference(embed(%{info | model: model, params: packed}, rows), rows, 0.999)
    end

    defp assert_like_reference(embeddings, rows, least) do
      for {embedding, row} <- Enum.zip(embeddings, rows),
          do: assert(cosine(embedding, row["embedding"]) >= least, row["text"])
    end

    defp embed(model, rows) do
      tokenizer = %Tokens{table: Map.new(rows, &{&1["text"], &1["tokens"]})}

      serving =
        Bumblebee.Text.text_embedding(model, tokenizer,
          output_attribute: :hidden_state,
          output_pool: :mean_pooling,
          embedding_processor: :l2_norm,
          compile: [batch_size: 8, sequence_length: 64],
          defn_options: [compiler: Mlx.Compiler]
        )

      name = :"#{__MODULE__}.#{System.unique_integer([:positive])}"
      options = [name: name, serving: serving, batch_size: 8]
      start_supervised!({Nx.Serving, options}, id: name)

      for %{embedding: embedding} <-
            Nx.Serving.batched_run(name, Enum.map(rows, & &1["text"])) do
        assert Nx.shape(embedding) == {384}
        Nx.to_flat_list(embedding)
      end
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

  # Nothing may be computed by the other backend on the way.
  defp assert_without_others(run, parameters, inputs) do
    check = fn parameters, inputs ->
      called = calls(Mlx.Backend, fn -> run.(parameters, inputs) end)
      # Numbers in a model come from it.
      assert Enum.uniq(called) -- [:from_binary, :to_binary] == []
    end

    Oracle.run(:eager, check, [parameters, inputs])
  end

  # Which functions of Nx.BinaryBackend another process calls, as no process can trace itself. Nx has it
  # compute what follows from numbers in definitions, which are scalars, while it traces them.
  defp calls(backend, fun) do
    task =
      Task.async(fn ->
        receive do: (:go -> Nx.with_default_backend(backend, fun))
      end)

    # Other tests that trace are not to see what is called.
    only = [{:_, [{:"=:=", {:self}, {:const, task.pid}}], []}]
    :erlang.trace_pattern({Nx.BinaryBackend, :_, :_}, only, [])
    :erlang.trace(task.pid, true, [:call])
    send(task.pid, :go)
    Task.await(task, :infinity)
    delivered = :erlang.trace_delivered(task.pid)
    assert_receive {:trace_delivered, _pid, ^delivered}, 60_000
    :erlang.trace_pattern({Nx.BinaryBackend, :_, :_}, false, [])
    called()
  end

  defp called do
    receive do
      {:trace, _pid, :call, {Nx.BinaryBackend, _name, [%Nx.Tensor{shape: {}} | _]}} -> called()
      {:trace, _pid, :call, {Nx.BinaryBackend, name, _args}} -> [name | called()]
    after
      0 -> []
    end
  end
end
