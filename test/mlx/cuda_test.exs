defmodule Mlx.CudaTest do
  # What only an NVIDIA GPU shows. The rest of the tests run on one with MLX_TEST_DEVICE=gpu.
  use ExUnit.Case, async: false
  import Mlx.Samples
  alias Mlx.Doctor.{Cuda, Runtime}
  alias Mlx.{OwnVm, TestDevice}
  alias Nx.LinAlg

  @moduletag :gpu
  @moduletag timeout: 300_000

  @gpu {Mlx.Backend, device: :gpu}
  @cpu {Mlx.Backend, device: :cpu}

  defp on(backend, fun, args) do
    fun
    |> apply(Enum.map(args, &Nx.backend_copy(&1, backend)))
    |> List.wrap()
    |> Nx.Defn.Composite.flatten_list()
  end

  # A general matrix, and one that is positive-definite.
  defp matrices(n) do
    general =
      Nx.iota({n, n}, type: :f32, backend: Nx.BinaryBackend) |> Nx.multiply(1.7) |> Nx.sin()

    definite = general |> Nx.dot(Nx.transpose(general)) |> Nx.add(Nx.eye(n))
    {general, definite}
  end

  test "linear algebra gives what the CPU gives, on the GPU" do
    for n <- [1, 2, 5, 64],
        {general, definite} = matrices(n),
        b = sample(:f32, {n}),
        {fun, args} <- [
          {&LinAlg.cholesky/1, [definite]},
          {&LinAlg.qr/1, [general]},
          {&LinAlg.lu/1, [definite]},
          {&LinAlg.eigh/1, [definite]},
          {&LinAlg.svd/1, [general]},
          {&LinAlg.solve/2, [definite, b]},
          {&LinAlg.triangular_solve/2, [Nx.tril(definite), b]},
          {&LinAlg.invert/1, [definite]}
        ] do
      got = on(@gpu, fun, args)
      expected = on(@cpu, fun, args)
      assert length(got) == length(expected)

      for {got, expected} <- Enum.zip(got, expected) do
        assert got.data.device == :gpu
        assert {got.type, got.shape} == {expected.type, expected.shape}
        [got, expected] = for x <- [got, expected], do: Nx.backend_copy(x, Nx.BinaryBackend)
        assert Nx.to_number(Nx.all_close(got, expected, rtol: 1.0e-4, atol: 1.0e-5)) == 1
      end
    end
  end

  test "linear algebra among other operations waits for what it needs" do
    {general, definite} = matrices(64)

    fun = fn general, definite ->
      l = LinAlg.cholesky(Nx.add(definite, Nx.dot(general, Nx.transpose(general))))
      Nx.subtract(Nx.dot(l, Nx.transpose(l)), definite)
    end

    expected = Nx.dot(general, Nx.transpose(general))

    for run <- [fun, Nx.Defn.jit(fun, compiler: Mlx.Compiler, device: :gpu)], _ <- 1..20 do
      [got] = on(@gpu, run, [general, definite])
      got = Nx.backend_copy(got, Nx.BinaryBackend)
      assert Nx.to_number(Nx.all_close(got, expected, rtol: 1.0e-3, atol: 1.0e-3)) == 1
    end
  end

  test "the rows of halves are added up in single precision" do
    for type <- [:f16, :bf16], size <- [1, 7, 8, 33, 1000, 4096], rows <- [300, 1001] do
      x = Nx.iota({rows, size + 1}, type: :f32, backend: @cpu)
      x = x |> Nx.multiply(1.7) |> Nx.sin() |> Nx.add(1) |> Nx.as_type(type)

      for x <- [x, Nx.slice_along_axis(x, 1, size, axis: 1)] do
        sum = &Nx.sum(&1, axes: [-1])
        [got] = on(@gpu, sum, [x])
        expected = x |> Nx.as_type(:f32) |> sum.() |> Nx.as_type(type)
        got = Nx.backend_copy(got, @cpu)
        digits = if type == :f16, do: 2.0 ** -10, else: 2.0 ** -7
        assert Nx.to_number(Nx.all_close(got, expected, rtol: digits, atol: 0.0)) == 1
      end
    end
  end

  test "f64 is refused, with the ways out" do
    x = Nx.tensor([1, 2], backend: @gpu)

    for fun <- [
          fn -> Nx.tensor([1.0], type: :f64, backend: @gpu) end,
          fn -> Nx.as_type(x, :f64) end,
          fn -> Nx.backend_transfer(Nx.tensor([1.0], type: :f64, backend: @cpu), @gpu) end,
          fn ->
            Nx.Defn.jit_apply(&Nx.as_type(&1, :f64), [x], compiler: Mlx.Compiler, device: :gpu)
          end
        ] do
      TestDevice.assert_f64_refused(fun)
    end

    moved = x |> Nx.backend_transfer(@cpu) |> Nx.as_type(:f64)
    assert {moved.type, moved.data.device} == {{:f, 64}, :cpu}
  end

  @tag :tmp_dir
  test "f64 in a file can be cast on the way to the GPU", %{tmp_dir: folder} do
    path = Path.join(folder, "double.safetensors")
    x = Nx.tensor([1.5, 1.0e-3], type: :f64, backend: @cpu)
    Mlx.Weights.save(path, %{"x" => x})
    weights = Mlx.Weights.open(path)
    TestDevice.assert_f64_refused(fn -> Mlx.Weights.tensor(weights, "x", device: :gpu) end)
    cast = Mlx.Weights.tensor(weights, "x", device: :gpu, type: :f32)
    assert {cast.type, cast.data.device} == {{:f, 32}, :gpu}
    assert Nx.to_binary(cast) == x |> Nx.as_type(:f32) |> Nx.to_binary()
  end

  test "values have no address, and shared memory" do
    tensor = Nx.tensor([1.5, 2.5], backend: @gpu)
    error = assert_raise Mlx.Error, fn -> Nx.to_pointer(tensor, mode: :local) end
    assert error.kind == :unsupported
    pointer = Nx.to_pointer(tensor, mode: :ipc)
    assert Nx.to_list(Nx.from_pointer(@gpu, pointer, :f32, {2})) == [1.5, 2.5]
    assert Nx.to_list(tensor) == [1.5, 2.5]
  end

  # A product of a vector and a matrix takes as long as reading the matrix, which takes dozens of
  # times as long if the GPU has to fetch it from the host.
  test "a tensor that is read stays on the GPU" do
    OwnVm.assert_alive("""
    Nx.default_backend({Mlx.Backend, device: :gpu})
    weights = Mlx.eval(Nx.sin(Nx.iota({8192, 8192}, type: :f32)))
    x = Mlx.eval(Nx.iota({1, 8192}, type: :f32))

    products = fn ->
      times = for _ <- 1..20 do
        {time, _} = :timer.tc(fn -> Mlx.eval(for _ <- 1..10, do: Nx.dot(x, weights)) end)
        time
      end
      times |> Enum.sort() |> Enum.at(10)
    end

    products.()
    before = products.()
    held = Mlx.Memory.stats().active
    for _ <- 1..3, do: 268_435_456 = byte_size(Nx.to_binary(weights))
    Nx.to_number(weights[0][0])
    for pid <- Process.list(), do: :erlang.garbage_collect(pid)
    Mlx.synchronize(:gpu)
    later = products.()
    IO.puts("products took \#{before} µs, and \#{later} µs after reading")
    true = later < 5 * before
    true = Mlx.Memory.stats().active < held + 16 * 1024 ** 2
    """)
  end

  test "what is larger than the GPU's memory is refused, and the VM goes on" do
    OwnVm.assert_alive("""
    Nx.default_backend({Mlx.Backend, device: :gpu})
    huge = fn -> Mlx.eval(Nx.add(Nx.broadcast(1.0, {1_048_576, 1_048_576}), 1)) end
    :memory = refused.(huge)
    # Whoever sets a limit that isn't there learns of it from MLX.
    Mlx.Memory.set_limit(2 ** 45)
    many = fn ->
      Mlx.eval(for at <- 1..90, do: Nx.add(Nx.iota({1024, 1024, 512}, type: :f32), at))
    end
    kind = refused.(many)
    if kind not in [:memory, :native], do: raise("refused as one of \#{kind}")
    for pid <- Process.list(), do: :erlang.garbage_collect(pid)
    """)
  end

  # A thread of MLX's takes a processor for each of its streams that has computed.
  test "streams that nobody holds take no processor, and no stream does that idles" do
    OwnVm.assert_alive("""
    # In hundredths of a second.
    used = fn ->
      for stat <- Path.wildcard("/proc/self/task/*/stat"), {:ok, text} <- [File.read(stat)] do
        [name, rest] = Regex.run(~r/\\((.*)\\) (.*)/s, text, capture: :all_but_first)
        [user, system] = rest |> String.split() |> Enum.slice(11, 2)
        if name =~ "mlx-gpu", do: String.to_integer(user) + String.to_integer(system), else: 0
      end
      |> Enum.sum()
    end
    busy = fn -> before = used.(); Process.sleep(500); used.() - before end

    Nx.default_backend({Mlx.Backend, device: :gpu})
    x = Mlx.eval(Nx.iota({1000}))
    defmodule Fused do
      def run(x), do: x |> Nx.multiply(2) |> Nx.add(1) |> Nx.sum()
    end
    fused = Nx.Defn.jit(&Fused.run/1, compiler: Mlx.Compiler, fuse: true)
    1_000_000 = Nx.to_number(fused.(x))
    lazy = Nx.add(x, 1)
    streams = for _ <- 1..6, do: Mlx.Stream.new(:gpu)
    for stream <- streams, do: Mlx.Stream.with_stream(stream, fn -> 499_500 = Nx.to_number(Nx.sum(x)) end)
    Enum.each(streams, &Mlx.Stream.close/1)
    Process.sleep(500)
    true = busy.() < 75
    Process.sleep(11_000)
    true = busy.() < 10
    1_000_000 = Nx.to_number(fused.(x))
    500_500 = Nx.to_number(Nx.sum(lazy))
    """)
  end

  # CUDA's libraries have handles for each thread, which know the stream that is gone.
  test "what other libraries compute goes on after the stream was let go of" do
    {output, status} =
      OwnVm.run("""
      Nx.default_backend({Mlx.Backend, device: :gpu})
      compute = fn n ->
        x = Nx.iota({2, 4, n, 64}, type: :bf16) |> Nx.divide(1000)
        conv = Nx.conv(Nx.as_type(x, :f32), Nx.broadcast(0.5, {8, 4, 3, 3}), padding: :same)
        fft = x |> Nx.as_type(:f32) |> Nx.fft() |> Nx.abs()
        for y <- [conv, fft, Mlx.Fast.scaled_dot_product_attention(x, x, x), Nx.dot(x, [3], [0, 1], x, [3], [0, 1])],
            do: y |> Nx.as_type(:f32) |> Nx.sum() |> Nx.to_number()
      end
      first = compute.(16)
      Process.sleep(11_000)
      ^first = compute.(16)
      second = compute.(24)
      Process.sleep(11_000)
      ^second = compute.(24)
      Process.sleep(11_000)
      System.halt(0)
      """)

    assert {status, output} == {0, ""}
  end

  test "a VM that only starts and computes ends with status 0" do
    for ending <- ["", "System.halt(0)", "Application.stop(:mlx)"] do
      {output, status} =
        OwnVm.run("""
        # It tells that an application stops.
        Logger.configure(level: :warning)
        Nx.default_backend({Mlx.Backend, device: :gpu})
        6 = Nx.to_number(Nx.sum(Nx.tensor([1, 2, 3])))
        Nx.LinAlg.cholesky(Nx.eye(8))
        #{ending}
        """)

      assert {status, output} == {0, ""}
    end
  end

  test "the doctor knows the libraries of this MLX, and names one that is missing" do
    assert {:ok, %Runtime{library: library}} = Runtime.find(:code.priv_dir(:mlx))
    {listing, 0} = System.cmd("ldd", [library])
    assert %{status: :ok} = Cuda.libraries(listing, "13")

    nvidia =
      for [name] <-
            Regex.scan(~r/^\s*(lib(?:cu|nv|nccl)\S+) =>/m, listing, capture: :all_but_first),
          do: name

    assert nvidia != []

    for name <- nvidia do
      without = String.replace(listing, ~r/#{Regex.escape(name)} => .*/, "#{name} => not found")
      assert [%{status: :error, message: message, advice: advice}] = Cuda.libraries(without, "13")
      assert message == "#{name} is missing"
      assert advice =~ ~r/pip install nvidia-|install NVIDIA's driver/
    end
  end
end
