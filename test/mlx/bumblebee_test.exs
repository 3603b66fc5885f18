defmodule Mlx.BumblebeeTest do
  use ExUnit.Case, async: true

  alias Mlx.Oracle

  @moduletag :bumblebee
  @moduletag :capture_log
  @moduletag timeout: 600_000

  # Bumblebee may be missing, where packages come from a folder.
  @compile {:no_warn_undefined, [Axon, Axon.ModelState, Bumblebee, Bumblebee.Text]}

  alias Bumblebee.Audio.Whisper
  alias Bumblebee.Diffusion.{UNet2DConditional, VaeKl}
  alias Bumblebee.Text.{Bert, ClipText, Distilbert, Llama, Qwen3}
  alias Bumblebee.Vision.Vit

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

  @transformer [
    vocab_size: 50,
    max_positions: 32,
    hidden_size: 16,
    num_blocks: 2,
    num_attention_heads: 4,
    intermediate_size: 24
  ]

  @grouped Keyword.merge(@transformer, num_key_value_heads: 2, attention_head_size: 4)

  # Of convolutions and norms over small channels, whose sums cancel.
  @coarse 64

  setup do
    # What is the same each time is easier to look into.
    :rand.seed(:exsss, {1, 2, 3})
    :ok
  end

  for architecture <- [:base, :for_sequence_classification, :for_masked_language_modeling] do
    test "DistilBERT #{architecture}" do
      assert_runs(Distilbert, unquote(architecture), @transformer, tokens())
    end

    test "BERT #{architecture}" do
      assert_runs(Bert, unquote(architecture), @transformer, tokens())
    end
  end

  for architecture <- [:base, :for_causal_language_modeling] do
    test "Llama #{architecture}" do
      assert_runs(Llama, unquote(architecture), @grouped, tokens())
    end

    test "Qwen3 #{architecture}" do
      assert_runs(Qwen3, unquote(architecture), @grouped, tokens())
    end
  end

  for strategy <- [
        %{type: :linear, factor: 2.0},
        %{type: :dynamic, factor: 2.0},
        %{
          type: :longrope,
          short_factor: [1.0, 1.5],
          long_factor: [2.0, 3.0],
          original_max_positions: 4
        },
        %{
          type: :llama3,
          factor: 8.0,
          low_frequency_factor: 1.0,
          high_frequency_factor: 4.0,
          original_max_positions: 16
        }
      ] do
    test "Llama with positions scaled as #{strategy.type}" do
      # Shorter than the sequence, which is what :dynamic scales.
      opts = [
        rotary_embedding_scaling_strategy: unquote(Macro.escape(strategy)),
        max_positions: 6
      ]

      assert_runs(Llama, :base, Keyword.merge(@grouped, opts), tokens())
    end
  end

  test "ViT" do
    opts = Keyword.merge(@transformer, image_size: 8, patch_size: 4)
    opts = Keyword.drop(opts, [:vocab_size, :max_positions])
    inputs = %{"pixel_values" => normal({2, 8, 8, 3})}
    assert_runs(Vit, :base, opts, inputs)
    assert_runs(Vit, :for_image_classification, opts, inputs)
  end

  test "Whisper" do
    opts = [
      vocab_size: 50,
      feature_size: 8,
      encoder_max_positions: 10,
      decoder_max_positions: 12,
      hidden_size: 16,
      encoder_num_blocks: 1,
      decoder_num_blocks: 1,
      encoder_num_attention_heads: 4,
      decoder_num_attention_heads: 4,
      encoder_intermediate_size: 24,
      decoder_intermediate_size: 24
    ]

    inputs = %{
      "input_features" => normal({2, 20, 8}),
      "decoder_input_ids" => Nx.tensor([[1, 15, 4, 7], [3, 25, 9, 2]], backend: Nx.BinaryBackend)
    }

    assert_runs(Whisper, :base, opts, inputs)
    assert_runs(Whisper, :for_conditional_generation, opts, inputs)
  end

  describe "Stable Diffusion:" do
    test "the text encoder" do
      opts = Keyword.put(@transformer, :projection_size, 16)
      assert_runs(ClipText, :base, opts, tokens())
    end

    test "the UNet" do
      opts = [
        sample_size: 4,
        hidden_sizes: [32, 32],
        depth: 1,
        down_block_types: [:cross_attention_down_block, :down_block],
        up_block_types: [:up_block, :cross_attention_up_block],
        num_attention_heads: 2,
        cross_attention_size: 12
      ]

      inputs = %{
        "sample" => normal({1, 4, 4, 4}),
        "timestep" => Nx.tensor(17, backend: Nx.BinaryBackend),
        "encoder_hidden_state" => normal({1, 5, 12})
      }

      assert_runs(UNet2DConditional, :base, opts, inputs, @coarse)
    end

    test "the VAE's halves" do
      opts = [
        sample_size: 4,
        hidden_sizes: [32, 32],
        down_block_types: [:down_block, :down_block],
        up_block_types: [:up_block, :up_block]
      ]

      assert_runs(VaeKl, :encoder, opts, %{"sample" => normal({1, 4, 4, 3})}, @coarse)
      assert_runs(VaeKl, :decoder, opts, %{"sample" => normal({1, 2, 2, 4})}, @coarse)
    end
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

  defp assert_runs(module, architecture, opts, inputs, ulps \\ 16) do
    model = build(module, architecture, opts)
    {init, predict} = Axon.build(model)
    state = init.(inputs, Axon.ModelState.empty())
    parameters = randomize(state.data)

    run = fn parameters, inputs ->
      predict.(%{state | data: parameters}, inputs) |> outputs()
    end

    # The largest numbers of a result count: the layers before it have added up such ones.
    scale = scale(run.(parameters, inputs))
    Oracle.assert_same(run, [parameters, inputs], ulps: ulps, scale: scale, signed_zero: false)
    assert_without_others(run, parameters, inputs)
  end

  defp build(module, architecture, opts) do
    module |> Bumblebee.configure([architecture: architecture] ++ opts) |> Bumblebee.build_model()
  end

  # Those that the model was not asked for are no tensors.
  defp outputs(%Nx.Tensor{} = output), do: [output]
  defp outputs(%{__struct__: Axon.None}), do: []
  defp outputs(%{} = outputs), do: outputs |> Map.values() |> Enum.flat_map(&outputs/1)
  defp outputs(outputs), do: outputs |> Tuple.to_list() |> Enum.flat_map(&outputs/1)

  defp scale(outputs) do
    outputs |> Enum.map(&(&1 |> Nx.abs() |> Nx.reduce_max() |> Nx.to_number())) |> Enum.max()
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

  ## Numbers

  # Biases that are not zero and norms that are not one, of a size that layers keep.
  defp randomize(%Nx.Tensor{type: {:f, 32}} = tensor) do
    case tensor.shape do
      {size} -> normal({size}, 0.2, 0.5)
      shape -> normal(shape, 1 / :math.sqrt(fan_in(shape)))
    end
  end

  defp randomize(%Nx.Tensor{} = tensor), do: Nx.backend_copy(tensor, Nx.BinaryBackend)
  defp randomize(map), do: Map.new(map, fn {name, value} -> {name, randomize(value)} end)

  defp fan_in(shape), do: div(Tuple.product(shape), elem(shape, tuple_size(shape) - 1))

  defp normal(shape, deviation \\ 1.0, mean \\ 0.0) do
    for(_ <- 1..Tuple.product(shape), do: mean + deviation * :rand.normal())
    |> Nx.tensor(type: :f32, backend: Nx.BinaryBackend)
    |> Nx.reshape(shape)
  end

  # The second sequence is shorter and filled up.
  defp tokens do
    ids = [[10, 20, 30, 40, 11, 21, 31, 41], [5, 15, 25, 35, 45, 6, 0, 0]]
    mask = [[1, 1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1, 0, 0]]

    %{
      "input_ids" => Nx.tensor(ids, backend: Nx.BinaryBackend),
      "attention_mask" => Nx.tensor(mask, backend: Nx.BinaryBackend)
    }
  end
end
