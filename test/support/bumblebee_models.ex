defmodule Mlx.BumblebeeModels do
  @moduledoc """
  Small models of Bumblebee's with random parameters, and inputs for them.
  """

  # Bumblebee may be missing, where packages come from a folder.
  @compile {:no_warn_undefined, [Axon, Axon.ModelState, Bumblebee]}

  alias Bumblebee.Audio.Whisper
  alias Bumblebee.Diffusion.{UNet2DConditional, VaeKl}
  alias Bumblebee.Text.{Bert, ClipText, Distilbert, Gemma, Llama, Qwen3}
  alias Bumblebee.Vision.Vit

  @transformer [
    vocab_size: 50,
    max_positions: 32,
    hidden_size: 16,
    num_blocks: 2,
    num_attention_heads: 4,
    intermediate_size: 24
  ]

  @grouped Keyword.merge(@transformer, num_key_value_heads: 2, attention_head_size: 4)

  @doc """
  The model's specification, by a name, with other options.
  """
  def spec(name, opts \\ []) do
    {module, defaults} = defaults(name)

    Bumblebee.configure(
      module,
      [architecture: :base] |> Keyword.merge(defaults) |> Keyword.merge(opts)
    )
  end

  defp defaults(:distilbert), do: {Distilbert, @transformer}
  defp defaults(:bert), do: {Bert, @transformer}
  defp defaults(:llama), do: {Llama, @grouped}
  defp defaults(:qwen3), do: {Qwen3, @grouped}
  defp defaults(:gemma), do: {Gemma, [activation: :gelu] ++ @grouped}
  defp defaults(:clip_text), do: {ClipText, Keyword.put(@transformer, :projection_size, 16)}

  defp defaults(:vit) do
    {Vit,
     Keyword.drop(@transformer, [:vocab_size, :max_positions]) ++ [image_size: 8, patch_size: 4]}
  end

  defp defaults(:whisper) do
    {Whisper,
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
     decoder_intermediate_size: 24}
  end

  defp defaults(:unet) do
    {UNet2DConditional,
     sample_size: 4,
     hidden_sizes: [32, 32],
     depth: 1,
     down_block_types: [:cross_attention_down_block, :down_block],
     up_block_types: [:up_block, :cross_attention_up_block],
     num_attention_heads: 2,
     cross_attention_size: 12}
  end

  defp defaults(:vae) do
    {VaeKl,
     sample_size: 4,
     hidden_sizes: [32, 32],
     down_block_types: [:down_block, :down_block],
     up_block_types: [:up_block, :up_block]}
  end

  @doc """
  Ways to scale rotary embeddings, for sequences of eight tokens of a model made for six.
  """
  def scalings do
    [
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
    ]
  end

  @doc """
  Inputs for a model, of `Nx.BinaryBackend`.
  """
  def inputs(:vit), do: %{"pixel_values" => normal({2, 8, 8, 3})}

  def inputs(:whisper) do
    %{
      "input_features" => normal({2, 20, 8}),
      "decoder_input_ids" => integers([[1, 15, 4, 7], [3, 25, 9, 2]])
    }
  end

  def inputs(:unet) do
    %{
      "sample" => normal({1, 4, 4, 4}),
      "timestep" => integers(17),
      "encoder_hidden_state" => normal({1, 5, 12})
    }
  end

  # The second sequence is shorter and filled up.
  def inputs(_text) do
    %{
      "input_ids" => integers([[10, 20, 30, 40, 11, 21, 31, 41], [5, 15, 25, 35, 45, 6, 0, 0]]),
      "attention_mask" => integers([[1, 1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1, 0, 0]])
    }
  end

  @doc """
  A state with random parameters of `Nx.BinaryBackend`: biases that are not zero, norms that are not
  one, and matrices of a size that keeps numbers as large as they are.
  """
  def state(model, inputs, opts \\ []) do
    {init, _predict} = Axon.build(model, opts)
    state = init.(inputs, Axon.ModelState.empty())
    %{state | data: randomize(state.data)}
  end

  defp randomize(%Nx.Tensor{type: {:f, 32}} = tensor) do
    case tensor.shape do
      {size} -> normal({size}, 0.2, 0.5)
      shape -> normal(shape, 1 / :math.sqrt(fan_in(shape)))
    end
  end

  defp randomize(%Nx.Tensor{} = tensor), do: Nx.backend_copy(tensor, Nx.BinaryBackend)
  defp randomize(map), do: Map.new(map, fn {name, value} -> {name, randomize(value)} end)

  defp fan_in(shape), do: div(Tuple.product(shape), elem(shape, tuple_size(shape) - 1))

  @doc """
  The function of parameters and inputs that a model is, which gives a list of its tensors.
  """
  def runner(model, state, opts \\ []) do
    {_init, predict} = Axon.build(model, opts)
    fn parameters, inputs -> outputs(predict.(%{state | data: parameters}, inputs)) end
  end

  # Those that a model was not asked for are no tensors.
  defp outputs(%Nx.Tensor{} = output), do: [output]
  defp outputs(%{__struct__: Axon.None}), do: []
  defp outputs(%{} = outputs), do: outputs |> Map.values() |> Enum.flat_map(&outputs/1)
  defp outputs(outputs), do: outputs |> Tuple.to_list() |> Enum.flat_map(&outputs/1)

  @doc """
  The magnitude of what a model gives, which is that of the numbers which its layers add up.
  """
  def scale(outputs) do
    outputs |> Enum.map(&(&1 |> Nx.abs() |> Nx.reduce_max() |> Nx.to_number())) |> Enum.max()
  end

  @doc """
  Random numbers, the same ones in each test that seeds `:rand`.
  """
  def normal(shape, deviation \\ 1.0, mean \\ 0.0) do
    for(_ <- 1..Tuple.product(shape), do: mean + deviation * :rand.normal())
    |> Nx.tensor(type: :f32, backend: Nx.BinaryBackend)
    |> Nx.reshape(shape)
  end

  defp integers(numbers), do: Nx.tensor(numbers, backend: Nx.BinaryBackend)

  @doc """
  What generates six tokens, for each of the models that `models` makes of the one of that name:
  functions of the parameters and the inputs, which come after them.
  """
  def generators(name, models) do
    spec = spec(name, architecture: :for_causal_language_modeling)
    model = Bumblebee.build_model(spec)
    inputs = inputs(name)
    state = state(model, inputs)

    config =
      Bumblebee.configure(Bumblebee.Text.GenerationConfig, max_new_tokens: 6, pad_token_id: 0)

    generators =
      for model <- models.(model) do
        generate = Bumblebee.Text.Generation.build_generate(model, spec, config)
        fn data, inputs -> generate.(%{state | data: data}, inputs).token_ids end
      end

    seed = Nx.tensor([0, 0], backend: Nx.BinaryBackend)
    {generators, [state.data, Map.put(inputs, "seed", seed)]}
  end
end
