defmodule Mlx.DoctorTest do
  use ExUnit.Case, async: true
  import Mlx.OwnVm, only: [paths: 0]
  alias Mlx.Doctor.{Blas, Compute, Cuda, Host, Runtime}
  doctest Mlx.Doctor

  @moduletag :tmp_dir

  # What is here, in another folder, with some of it missing.
  defp copy(folder, parts) do
    app = Path.join(folder, "lib/mlx")
    File.mkdir_p!(Path.join(app, "priv"))
    original = to_string(:code.lib_dir(:mlx))
    File.ln_s!(Path.join(original, "ebin"), Path.join(app, "ebin"))

    for part <- parts,
        do:
          File.cp_r!(Path.join([original, "priv", part]), Path.join([app, "priv", part]),
            dereference_symlinks: false
          )

    app
  end

  # The task in a VM of its own, with the folder in the place of this Mlx.
  defp doctor(app, opts \\ []) do
    paths = Enum.reject(paths(), &(&1 =~ ~r{/mlx/ebin$})) ++ [Path.join(app, "ebin")]
    code = (opts[:before] || "") <> ~s|Mix.start(); Mix.Task.run("mlx.doctor", [])|
    args = Enum.flat_map(paths, &["-pa", &1]) ++ ["-e", code]

    System.cmd(System.find_executable("elixir"), args,
      stderr_to_stdout: true,
      env: opts[:env] || []
    )
  end

  defp script(folder, name, text) do
    path = Path.join(folder, name)
    File.mkdir_p!(folder)
    File.write!(path <> ".text", "#!/bin/sh\n" <> text)
    # A file can't be run while it is open for writing, and a fork of this VM, such as MLX's
    # to compile a kernel, may hold it open for a moment.
    {_, 0} = System.cmd("cp", [path <> ".text", path])
    File.chmod!(path, 0o755)
    path
  end

  defp path_with(folder), do: [{"PATH", folder <> ":" <> System.get_env("PATH")}]

  test "here all is well, or works at least" do
    {output, status} = doctor(to_string(:code.lib_dir(:mlx)))
    assert {status, output =~ "0 errors"} == {0, true}, output

    for line <- [
          ~r/^(ok|warning) +platform /m,
          ~r/^ok +Elixir +#{System.version()} on OTP /m,
          ~r/^ok +MLX +0\.32\.2, /m,
          ~r/^ok +NIF +loads, with \d+ operations/m,
          ~r/^ok +application +starts/m,
          ~r/^(ok|warning) +devices +cpu/m,
          ~r/^ok +cpu computes /m,
          ~r/^(ok|warning) +BLAS /m,
          ~r/^(ok|warning) +compiler /m
        ],
        do: assert(output =~ line, output)
  end

  describe "a NIF that can't be loaded" do
    test "because MLX is not beside it", %{tmp_dir: folder} do
      {output, status} = folder |> copy(["native"]) |> doctor()
      assert status == 1, output
      assert output =~ ~r/^error +MLX .*priv\/runtime is missing/m
      assert output =~ ~r/^error +NIF +can't be loaded: .*libmlx\S+: cannot open shared object/m
      assert output =~ "-> run `cargo xtask mlx`"
      assert output =~ "2 errors"
      refute output =~ "computes"
    end

    test "because what was prepared is gone", %{tmp_dir: folder} do
      app = copy(folder, ["native"])
      File.ln_s!(Path.join(folder, "nowhere"), Path.join(app, "priv/runtime"))
      {output, status} = doctor(app)

      assert {status, output =~ ~r/^error +MLX .*leads to .*nowhere, which is gone/m} ==
               {1, true},
             output
    end

    test "because it is damaged, at which a VM ends", %{tmp_dir: folder} do
      app = copy(folder, ["native", "runtime"])
      nif = Path.join(app, "priv/native/mlx_nif.so")
      damaged = nif |> File.read!() |> binary_part(0, 1000)
      File.rm!(nif)
      File.write!(nif, damaged)
      {output, status} = doctor(app)

      assert {status, output =~ ~r/^error +NIF +can't be loaded: a VM that tries/m} == {1, true},
             output
    end

    test "because it is not there itself", %{tmp_dir: folder} do
      {output, status} = folder |> copy(["runtime"]) |> doctor()
      assert {status, output =~ ~r/^error +NIF +can't be loaded: .*mlx_nif/m} == {1, true}, output
      assert output =~ ~r/^ok +MLX /m
    end
  end

  test "a setting that is wrong", %{tmp_dir: folder} do
    app = copy(folder, ["native", "runtime"])
    {output, status} = doctor(app, before: "Application.put_env(:mlx, :dispatch, :frob); ")
    assert status == 1, output
    assert output =~ ~r/^error +application +config :mlx, dispatch: expected one of/m, output
  end

  describe "the compiler for :fuse" do
    test "is missing, which is no error", %{tmp_dir: folder} do
      bin = Path.join(folder, "bin")
      File.mkdir_p!(bin)
      # What `elixir` and the VM themselves need, and no more.
      for tool <- ~w(sh erl dirname readlink basename sed uname expr) ++ ["erlexec"],
          path = System.find_executable(tool),
          do: File.ln_s!(path, Path.join(bin, tool))

      {output, status} = doctor(to_string(:code.lib_dir(:mlx)), env: [{"PATH", bin}])

      assert output =~ ~r/^warning +compiler +there is no g\+\+ in the PATH\n +-> install g\+\+/m,
             output

      assert status == 0
    end

    test "does not run", %{tmp_dir: folder} do
      script(folder, "g++", "exit 3")
      {output, status} = doctor(to_string(:code.lib_dir(:mlx)), env: path_with(folder))
      assert {status, output =~ ~r/^warning +compiler .*g\+\+ ends with 3/m} == {0, true}, output
    end
  end

  describe "NVIDIA's libraries" do
    setup %{tmp_dir: folder} do
      priv = Path.join(folder, "priv")
      File.mkdir_p!(Path.join(priv, "runtime/mlx/lib"))
      File.write!(Path.join(priv, "runtime/mlx/lib/libmlx.so"), "")
      %{priv: priv, bin: Path.join(folder, "bin")}
    end

    defp cuda(version, priv) do
      package = "mlx_cuda_#{version}-0.32.2.dist-info"
      File.mkdir_p!(Path.join([priv, "runtime", package]))
      Runtime.find(priv)
    end

    @listing """
    \\tlibcuda.so.1 => not found
    \\tlibcudnn.so.9 => not found
    \\tlibcublasLt.so.13 => not found
    \\tlibnew.so.1 => not found
    \\tlibnccl.so.2 => /usr/lib/libnccl.so.2 (0x0)
    """

    test "are named with the packages that have them", %{priv: priv, bin: bin, tmp_dir: folder} do
      script(bin, "ldd", "printf '#{@listing}'")
      app = copy(folder, ["native"])
      cuda(13, Path.join(app, "priv"))
      File.mkdir_p!(Path.join(app, "priv/runtime/mlx/lib"))
      File.write!(Path.join(app, "priv/runtime/mlx/lib/libmlx.so"), "")
      {output, status} = doctor(app, env: path_with(bin))
      assert status == 1, output
      assert output =~ ~r/^ok +MLX +0\.32\.2, variant cuda13/m
      assert output =~ ~r/^error +CUDA +libcuda\.so\.1 is missing\n +-> install NVIDIA's driver/m

      assert output =~
               ~r/^error +CUDA +libcudnn\.so\.9 is missing\n +-> pip install nvidia-cudnn-cu13,/m

      assert output =~
               ~r/^error +CUDA +libcublasLt\.so\.13 is missing\n +-> pip install nvidia-cublas,/m

      assert output =~ ~r/^error +CUDA +libnew\.so\.1 is missing\n +-> install the package/m
      refute output =~ "libnccl"
      assert {:ok, %Runtime{variant: "cuda12"}} = cuda(12, priv)
    end

    test "of CUDA 12 are in other packages" do
      listing = "\tlibcublasLt.so.12 => not found\n\tlibcublasLt.so.12 => not found\n"
      assert [%{status: :error, advice: advice}] = Cuda.libraries(listing, "12")
      assert advice =~ "pip install nvidia-cublas-cu12,"
    end

    test "are all there" do
      assert %{status: :ok} =
               Cuda.libraries("\tlibcuda.so.1 => /usr/lib/libcuda.so.1 (0x0)\n", "13")
    end

    test "are not asked for by other variants", %{priv: priv} do
      File.mkdir_p!(Path.join(priv, "runtime/mlx_cpu-0.32.2.dist-info"))
      assert Cuda.check(Runtime.find(priv)) == []
      assert Cuda.check({:error, "missing"}) == []
    end

    test "have packages that are those of the build" do
      for {file, version} <- [{"nvidia-cuda-12.txt", 12}, {"nvidia-cuda-13.txt", 13}] do
        pins = File.read!(Path.join("native/xtask/wheels", file))

        for [package] <- Regex.scan(~r/^(nvidia\S+)==/m, pins, capture: :all_but_first),
            do: assert(package in Cuda.packages(version))
      end
    end
  end

  describe "MLX" do
    setup %{tmp_dir: folder} do
      root = Path.join(folder, "runtime")
      File.mkdir_p!(Path.join(root, "mlx/lib"))
      File.mkdir_p!(Path.join(root, "mlx/include/mlx"))
      File.write!(Path.join(root, "mlx/lib/libmlx.dylib"), "")
      %{root: root}
    end

    test "of another version is an error", %{tmp_dir: priv, root: root} do
      File.mkdir_p!(Path.join(root, "mlx_metal-0.31.0.dist-info"))
      assert {:ok, %Runtime{variant: "metal"}} = runtime = Runtime.find(priv)

      assert %{status: :error, message: "0.31.0, but Mlx is built for 0.32.2"} =
               Runtime.check(runtime)
    end

    test "that was installed has its version in a header", %{tmp_dir: priv, root: root} do
      assert {:ok, %Runtime{version: "unknown"}} = Runtime.find(priv)

      header =
        "#define MLX_VERSION_MAJOR 0\n#define MLX_VERSION_MINOR 32\n#define MLX_VERSION_PATCH 2\n"

      File.write!(Path.join(root, "mlx/include/mlx/version.h"), header)

      assert %{status: :ok, message: "0.32.2, installed, in " <> _} =
               Runtime.check(Runtime.find(priv))
    end

    test "without its library is none", %{tmp_dir: priv, root: root} do
      File.rm!(Path.join(root, "mlx/lib/libmlx.dylib"))

      assert %{status: :error, message: "there is no MLX in " <> _} =
               Runtime.check(Runtime.find(priv))
    end
  end

  test "platforms and versions" do
    assert %{status: :ok} = Host.platform({:unix, :linux}, "x86_64-pc-linux-gnu")
    assert %{status: :warning} = Host.platform({:unix, :linux}, "aarch64-unknown-linux-gnu")
    assert %{status: :warning} = Host.platform({:unix, :darwin}, "aarch64-apple-darwin24")
    assert %{status: :error} = Host.platform({:unix, :darwin}, "x86_64-apple-darwin22")
    assert %{status: :error} = Host.platform({:unix, :linux}, "armv7l-unknown-linux")
    assert %{status: :error} = Host.platform({:win32, :nt}, "win32")
    assert %{status: :ok} = Host.elixir("1.18.0", "26")
    assert %{status: :error} = Host.elixir("1.16.3", "27")
    assert %{status: :error} = Host.elixir("1.18.0", "25")
  end

  test "a GPU that is not seen" do
    of = fn variant -> {:ok, %Runtime{root: "", library: "", version: "", variant: variant}} end
    assert %{status: :warning, advice: advice} = Compute.without_gpu("cpu", of.("cuda13"), true)
    assert advice =~ "nvidia-smi"
    assert %{status: :warning} = Compute.without_gpu("cpu", of.("metal"), false)
    assert %{status: :warning, advice: advice} = Compute.without_gpu("cpu", of.("cpu"), true)
    assert advice =~ "MLX_VARIANT"
    assert %{status: :ok} = Compute.without_gpu("cpu", of.("cpu"), false)
  end

  test "a BLAS that is slow" do
    reference = ["/runtime/mlx_cpu.libs/libblas-bd8a282c.so.3.10.0"]
    assert %{status: :warning, advice: advice} = Blas.check({:unix, :linux}, reference)
    assert advice =~ "libopenblas0-pthread"
    assert %{status: :warning} = Blas.check({:unix, :linux}, [])
    assert %{status: :ok} = Blas.check({:unix, :linux}, ["/opt/libmkl_rt.so.2"])
    assert %{status: :ok} = Blas.check({:unix, :darwin}, [])
  end

  test "run gives the outcome, and the task takes no arguments" do
    test = self()
    outcome = Mlx.Doctor.run(&send(test, {:line, &1}))
    assert outcome == :ok
    assert_received {:line, "ok       platform" <> _}
    assert_raise Mix.Error, ~r/no arguments/, fn -> Mix.Tasks.Mlx.Doctor.run(["--frob"]) end
  end
end
