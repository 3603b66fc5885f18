defmodule Mlx.TelemetryTest do
  use ExUnit.Case, async: true
  import Mlx.Samples
  doctest Mlx.Telemetry

  setup context do
    test = self()
    suffixes = [:start, :stop, :exception]
    events = for name <- [:eval, :to_binary], suffix <- suffixes, do: [:mlx, name, suffix]
    :telemetry.attach_many(context.test, events, &__MODULE__.forward/4, test)
    on_exit(fn -> :telemetry.detach(context.test) end)
  end

  # Handlers run in the process of the event, and other tests have events, too.
  def forward(event, measurements, metadata, test) do
    if self() == test, do: send(test, {event, measurements, metadata})
  end

  test "a read is a span" do
    Nx.to_binary(mlx(sample(:f32, {2, 3})))
    assert_received {[:mlx, :to_binary, :start], %{system_time: _, monotonic_time: _}, metadata}
    described = %{shape: {2, 3}, type: {:f, 32}, byte_size: 24, device: :cpu}
    assert Map.take(metadata, Map.keys(described)) == described
    assert_received {[:mlx, :to_binary, :stop], %{duration: duration}, ^metadata}
    assert duration > 0
    refute_received {[:mlx | _], _, _}
  end

  test "the size is that of the whole of a vectorized tensor" do
    tensor = Nx.vectorize(mlx(sample(:f32, {2, 3})), :rows)
    binary = Nx.to_binary(tensor)
    assert_received {[:mlx, :to_binary, :stop], _, %{byte_size: size}}
    assert size == byte_size(binary)
  end

  test "eval is one span for all tensors" do
    Mlx.eval({mlx(sample(:c64, {3})), mlx(tensor(1, :u16))})
    assert_received {[:mlx, :eval, :start], _, %{tensors: 2, byte_size: 26, devices: [:cpu]}}
    assert_received {[:mlx, :eval, :stop], _, %{tensors: 2}}
    refute_received {[:mlx | _], _, _}
  end

  test "operations and async_eval are none" do
    tensor = mlx(sample(:f32))
    Mlx.async_eval(Nx.add(tensor, tensor))
    refute_received {[:mlx | _], _, _}
  end

  test "printing reads only what it shows" do
    inspect(mlx(sample(:u8, {1000})), limit: 5)
    assert_received {[:mlx, :to_binary, :stop], _, %{byte_size: 6}}
    refute_received {[:mlx, :to_binary, :stop], _, _}
  end

  test "a read that fails is an exception" do
    tensor = mlx(sample(:f32))
    Nx.backend_deallocate(tensor)
    assert_raise Mlx.Error, fn -> Nx.to_binary(tensor) end
    assert_received {[:mlx, :to_binary, :exception], %{duration: _}, metadata}
    assert %{kind: :error, reason: %Mlx.Error{}, stacktrace: [_ | _], shape: {3, 5}} = metadata
  end

  defp mlx(tensor), do: Nx.backend_copy(tensor, {Mlx.Backend, device: :cpu})
end
