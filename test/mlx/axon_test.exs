defmodule Mlx.AxonTest do
  use ExUnit.Case, async: true

  alias Mlx.Oracle

  @moduletag :axon
  @moduletag :capture_log

  # Axon may be missing, where packages come from a folder.
  @compile {:no_warn_undefined,
            [Axon, Axon.Activations, Axon.Loop, Axon.ModelState, Polaris.Optimizers]}

  @compiled [compiler: Mlx.Compiler]

  setup do
    Nx.default_backend(Mlx.Backend)
    :ok
  end

  # Images as rows of 64 values from 0 to 1, and the digits as vectors of ten.
  setup_all do
    rows =
      for line <-
            "data/digits.csv.gz"
            |> File.read!()
            |> :zlib.gunzip()
            |> String.split("\n", trim: true) do
        line |> String.split(",") |> Enum.map(&String.to_integer/1) |> Enum.split(64)
      end

    {test, train} = rows |> Enum.with_index() |> Enum.split_with(fn {_, i} -> rem(i, 5) == 0 end)
    %{train: tensors(train), held_out: tensors(test)}
  end

  defp tensors(rows) do
    {images, digits} = rows |> Enum.map(&elem(&1, 0)) |> Enum.unzip()
    images = images |> Nx.tensor(type: :f32, backend: Mlx.Backend) |> Nx.divide(16)

    {images,
     Nx.equal(Nx.tensor(digits, backend: Mlx.Backend), Nx.iota({1, 10}, backend: Mlx.Backend))}
  end

  ## Models

  defp mlp do
    Axon.input("images", shape: {nil, 64})
    |> Axon.dense(32, activation: :relu)
    |> Axon.dropout(rate: 0.1, seed: 1)
    |> Axon.dense(10, activation: :softmax)
  end

  defp le_net do
    Axon.input("images", shape: {nil, 64})
    |> Axon.reshape({:batch, 8, 8, 1})
    |> Axon.conv(6, kernel_size: 3, padding: :same, activation: :tanh)
    |> Axon.avg_pool(kernel_size: 2)
    |> Axon.conv(16, kernel_size: 3, activation: :tanh)
    |> Axon.max_pool(kernel_size: 2)
    |> Axon.flatten()
    |> Axon.dense(32, activation: :tanh)
    |> Axon.dense(10, activation: :softmax)
  end

  # An image is a sequence of eight rows.
  defp encoder do
    Axon.input("images", shape: {nil, 64})
    |> Axon.reshape({:batch, 8, 8})
    |> Axon.dense(16)
    |> position()
    |> block(2)
    |> Axon.layer_norm()
    |> Axon.nx(&Nx.mean(&1, axes: [1]))
    |> Axon.dense(10, activation: :softmax)
  end

  defp position(x) do
    table = Axon.param("table", {8, 16}, initializer: :normal)
    Axon.layer(fn x, table, _opts -> Nx.add(x, table) end, [x, table], op_name: :position)
  end

  defp block(x, heads) do
    normal = Axon.layer_norm(x)
    [query, key, value] = for _ <- 1..3, do: Axon.dense(normal, 16, use_bias: false)

    attention =
      Axon.layer(&attention/4, [query, key, value], op_name: :attention, heads: heads)
      |> Axon.dense(16)

    x = Axon.add(x, attention)

    x
    |> Axon.layer_norm()
    |> Axon.dense(32, activation: :gelu)
    |> Axon.dense(16)
    |> Axon.add(x)
  end

  defp attention(query, key, value, opts) do
    {batch, length, width} = Nx.shape(query)
    heads = opts[:heads]

    [query, key, value] =
      for x <- [query, key, value],
          do:
            x
            |> Nx.reshape({batch, length, heads, div(width, heads)})
            |> Nx.transpose(axes: [0, 2, 1, 3])

    scores = Nx.dot(query, [3], [0, 1], key, [3], [0, 1])
    weights = scores |> Nx.divide(:math.sqrt(div(width, heads))) |> Axon.Activations.softmax()

    weights
    |> Nx.dot([3], [0, 1], value, [2], [0, 1])
    |> Nx.transpose(axes: [0, 2, 1, 3])
    |> Nx.reshape({batch, length, width})
  end

  # The loop over the rows is a `while`, and so is its gradient.
  defp recurrent do
    {sequence, _state} =
      Axon.input("images", shape: {nil, 64})
      |> Axon.reshape({:batch, 8, 8})
      |> Axon.lstm(16, unroll: :dynamic)

    sequence
    |> Axon.nx(& &1[[.., -1]])
    |> Axon.dense(10, activation: :softmax)
  end

  # With a state beside the weights.
  defp normalized do
    Axon.input("images", shape: {nil, 64})
    |> Axon.dense(32)
    |> Axon.batch_norm()
    |> Axon.relu()
    |> Axon.dense(10, activation: :softmax)
  end

  ## Training

  defp batches({images, digits}, size) do
    Enum.zip(Nx.to_batched(images, size, leftover: :discard), Nx.to_batched(digits, size))
  end

  # Gives all that the loop knows in the end, and logs nothing.
  defp train(model, batches, run, opts \\ []) do
    optimizer = Polaris.Optimizers.adam(learning_rate: 0.01)

    model
    |> Axon.Loop.trainer(:categorical_cross_entropy, optimizer, [log: 0, seed: 42] ++ opts)
    |> Axon.Loop.metric(:accuracy)
    |> Map.put(:output_transform, & &1)
    |> Axon.Loop.run(batches, Axon.ModelState.empty(), run)
  end

  defp results(%{step_state: %{loss: loss, model_state: weights}} = state) do
    {loss, weights.data, state.metrics}
  end

  defp accuracy(model, %{step_state: %{model_state: weights}}, {images, digits}) do
    read = model |> Axon.predict(weights, images, @compiled) |> Nx.argmax(axis: 1)
    read |> Nx.equal(Nx.argmax(digits, axis: 1)) |> Nx.mean() |> Nx.to_number()
  end

  defp assert_learns(model, data, epochs, least) do
    compiled = train(model, batches(data.train, 64), [epochs: epochs] ++ @compiled)
    assert accuracy(model, compiled, data.held_out) >= least
    compiled
  end

  # The last bit included.
  defp assert_like_evaluator(model, compiled, batches, epochs) do
    evaluated = train(model, batches, epochs: epochs, compiler: Nx.Defn.Evaluator)
    Oracle.assert_identical(results(compiled), results(evaluated))
  end

  # For as many steps as the reference can take in a moment.
  defp assert_like_binary_backend(model, data, steps, tolerance) do
    batches = data.train |> batches(16) |> Enum.take(steps)
    compiled = train(model, batches, @compiled)

    reference =
      Nx.with_default_backend(Nx.BinaryBackend, fn ->
        train(model, Nx.backend_copy(List.to_tuple(batches)) |> Tuple.to_list(),
          compiler: Nx.Defn.Evaluator
        )
      end)

    for {got, expected} <- Enum.zip(numbers(compiled), numbers(reference)) do
      assert_in_delta got, expected, tolerance
    end
  end

  defp numbers(%{step_state: %{loss: loss, y_pred: predictions}}) do
    [Nx.to_number(loss) | Nx.to_flat_list(predictions)]
  end

  for {name, model, epochs, least, steps} <- [
        {"an MLP", :mlp, 10, 0.93, 10},
        {"a LeNet", :le_net, 16, 0.93, 3},
        {"a transformer encoder", :encoder, 8, 0.9, 3}
      ] do
    test name, data do
      model = unquote(model)()
      compiled = assert_learns(model, data, unquote(epochs), unquote(least))
      assert_like_evaluator(model, compiled, batches(data.train, 64), unquote(epochs))
      assert_like_binary_backend(model, data, unquote(steps), 1.0e-4)
    end
  end

  test "a recurrent network", data do
    model = recurrent()
    assert_learns(model, data, 3, 0.7)

    few = data.train |> batches(64) |> Enum.take(4)
    assert_like_evaluator(model, train(model, few, @compiled), few, 1)
    assert_like_binary_backend(model, data, 1, 1.0e-4)
  end

  test "a state, with a loss that is scaled as the gradients allow", data do
    batches = batches(data.train, 64)
    opts = [loss_scale: :dynamic]
    compiled = train(normalized(), batches, [epochs: 2] ++ @compiled, opts)
    evaluated = train(normalized(), batches, [epochs: 2, compiler: Nx.Defn.Evaluator], opts)
    Oracle.assert_identical(results(compiled), results(evaluated))
    assert accuracy(normalized(), compiled, data.held_out) >= 0.9
  end

  test "hooks of layers", data do
    test = self()
    model = Axon.attach_hook(mlp(), &send(test, {:layer, Nx.shape(&1)}), mode: :train)
    train(model, data.train |> batches(64) |> Enum.take(3), @compiled)
    for _ <- 1..3, do: assert_received({:layer, {64, 10}})
    refute_received {:layer, _}
  end

  test "the options of Axon.build/2", %{held_out: {images, _}} do
    opts = [mode: :train, seed: 1, debug: true, print_values: false, raise_on_none: true]
    build = &Axon.build(mlp(), [global_layer_options: []] ++ opts ++ &1)

    [{compiled, got}, {evaluated, expected}] =
      for compiler <- [@compiled, [compiler: Nx.Defn.Evaluator]] do
        {init, predict} = build.(compiler)
        weights = init.(images, Axon.ModelState.empty())
        {weights.data, predict.(weights, images).prediction}
      end

    Oracle.assert_identical(compiled, evaluated)
    Oracle.assert_identical(got, expected)
  end
end
